"""The trained encoder as ONNX: pooling and normalisation inside, any batch and length."""

import json
import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

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
    """Writes query_encoder.onnx (and document_encoder.onnx with two towers), tokenizer.json and encoder.json
    into `folder`.
    """
    encoder.eval()
    for tower in (encoder.query, encoder.document):
        if tower is not None:
            tower.set_attn_implementation("eager")  # the fused kernels have no ONNX form
    kinds: list[tuple[Kind, str]] = [("query", "query_encoder.onnx")]
    if encoder.document is not None:
        kinds.append(("document", "document_encoder.onnx"))
    ids, mask = encoder.pad(encoder.tokenize(["two words", "one"]))
    for kind, name in kinds:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Tower(encoder, kind),
                (ids, mask),
                str(folder / name),
                input_names=["ids", "mask"],
                output_names=["vectors"],
                dynamic_axes={"ids": {0: "n", 1: "t"}, "mask": {0: "n", 1: "t"}, "vectors": {0: "n"}},
                opset_version=opset,
                dynamo=False,
            )
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    about = json.loads((source / "encoder.json").read_text(encoding="utf-8"))
    about |= {"eos_id": encoder.tokenizer.eos_token_id, "pad_id": encoder.tokenizer.pad_token_id or 0}
    (folder / "encoder.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def quantise(folder: Path) -> Path:
    """query_encoder.int8.onnx beside the float one (dynamic quantisation of the weights)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    out = folder / "query_encoder.int8.onnx"
    quantize_dynamic(folder / "query_encoder.onnx", out, weight_type=QuantType.QInt8)
    return out
