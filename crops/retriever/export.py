"""The trained encoder as ONNX: pooling and normalisation inside, any batch and length."""

import json
import shutil
from pathlib import Path

from torch import Tensor, nn

from crops import base_model
from crops.release import layout
from crops.retriever.encoder import Encoder, Kind


class Tower(nn.Module):
    """ids, mask int64 [N, T] -> float32 [N, H], as one module without the tokenizer."""

    def __init__(self, encoder: Encoder, kind: Kind) -> None:
        super().__init__()
        self.encoder, self.kind = encoder, kind

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """See Encoder.forward."""
        vectors: Tensor = self.encoder(ids, mask, self.kind)
        return vectors


def write(encoder: Encoder, source: Path, folder: Path, *, opset: int) -> None:
    """Writes the encoder's files of a release into `folder`; with two towers there are two ONNX files."""
    encoder.eval()
    for each in encoder.towers:
        each.set_attn_implementation("eager")  # the fused kernels have no ONNX form
    kinds: list[tuple[Kind, str]] = [("query", layout.QUERY_ENCODER)]
    if encoder.document is not None:
        kinds.append(("document", layout.DOCUMENT_ENCODER))
    ids, mask = encoder.pad(encoder.tokenize(["two words", "one"]))
    for kind, name in kinds:
        tower, given = Tower(encoder, kind), {"ids": ids, "mask": mask}
        base_model.write_onnx(tower, given, "vectors", folder / name, opset=opset)
    shutil.copyfile(source / layout.TOKENIZER, folder / layout.TOKENIZER)
    facts = json.loads((source / layout.ENCODER).read_text(encoding="utf-8"))
    facts |= {"width": encoder.width, "widths": encoder.widths}
    facts |= {"eos_id": encoder.tokenizer.eos_token_id, "pad_id": encoder.tokenizer.pad_token_id or 0}
    (folder / layout.ENCODER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
