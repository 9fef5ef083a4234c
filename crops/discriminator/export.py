"""θ's cross-encoder as the re-ranker of a release, in ONNX."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from crops import base_model
from crops.discriminator.model import CrossEncoder
from crops.release import layout


class Logit(nn.Module):
    """ids, mask, segments int64 [N, T] -> float32 [N]."""

    def __init__(self, cross: CrossEncoder) -> None:
        super().__init__()
        self.model = cross.model

    def forward(self, ids: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
        """See CrossEncoder.logits."""
        fields = {"input_ids": ids, "attention_mask": mask}
        if segments is not None:
            fields["token_type_ids"] = segments
        logits: Tensor = self.model(**fields).logits[:, 0]
        return logits.float()


def write(cross: CrossEncoder, weights: tuple[float, float], folder: Path, *, opset: int) -> None:
    """Writes the re-ranker's files. weights: of its logit and of the release's own cosine, whose weighted sum
    orders the first results.
    """
    model = cross.model.to("cpu").eval()  # type: ignore[arg-type]  # see discriminator.model
    model.set_attn_implementation("eager")  # the fused kernels have no ONNX form
    names = ["ids", "mask", "segments"][: 3 if hasattr(model.config, "type_vocab_size") else 2]
    given = {name: torch.ones((2, 4), dtype=torch.int64) for name in names}
    base_model.write_onnx(Logit(cross), given, "logits", folder / layout.RERANKER_MODEL, opset=opset)
    cross.tokenizer.backend_tokenizer.save(str(folder / layout.RERANKER_TOKENIZER))
    facts = {
        "small": cross.small,
        "max_tokens": cross.max_tokens,
        "sep_id": cross.tokenizer.sep_token_id,
        "pad_id": cross.tokenizer.pad_token_id or 0,
        "weights": list(weights),
    }
    (folder / layout.RERANKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
