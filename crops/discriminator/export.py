"""θ's cross-encoder as the re-ranker of a release, in ONNX."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

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
    given = tuple(torch.ones((2, 4), dtype=torch.int64) for _ in names)
    axes = {name: {0: "n", 1: "t"} for name in names} | {"logits": {0: "n"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logit(cross),
            given,
            str(folder / layout.RERANKER_MODEL),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=opset,
            dynamo=False,
        )
    cross.tokenizer.backend_tokenizer.save(str(folder / layout.RERANKER_TOKENIZER))
    facts = {
        "small": cross.small,
        "max_tokens": cross.max_tokens,
        "sep_id": cross.tokenizer.sep_token_id,
        "pad_id": cross.tokenizer.pad_token_id or 0,
        "weights": list(weights),
    }
    (folder / layout.RERANKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
