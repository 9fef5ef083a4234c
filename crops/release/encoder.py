"""The exported encoder without torch: `tokenizers` and ONNX Runtime only. Evaluation of a champion and
serving use it.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from crops.errors import InputError
from crops.text import normalise_query

FILES = {"query": "query_encoder.onnx", "document": "document_encoder.onnx"}


class OnnxEncoder:
    """Reads query_encoder.onnx, tokenizer.json and encoder.json of a folder that `crops export` or a release
    wrote.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        provider_options: Sequence[dict[str, str]] | None = None,
    ) -> None:
        folder = Path(folder)
        for name in ("encoder.json", "tokenizer.json", FILES["query"]):
            if not (folder / name).is_file():
                raise InputError(folder / name, "no such file; expected a folder that `crops export` wrote")
        about = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        self.width, self.max_tokens, self.pooling = (
            int(about["width"]),
            int(about["max_tokens"]),
            str(about["pooling"]),
        )
        self.eos, self.pad = about["eos_id"], about["pad_id"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_tokens)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.sessions = {
            kind: onnxruntime.InferenceSession(
                folder / name,
                options,
                providers=list(providers),
                provider_options=list(provider_options) if provider_options else None,
            )
            for kind, name in FILES.items()
            if (folder / name).is_file()
        }

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids as in training: normalised, truncated, closed by the end token where the last token is
        pooled.
        """
        ids = [e.ids for e in self.tokenizer.encode_batch([normalise_query(t) for t in texts])]
        if self.pooling == "last" and self.eos is not None:
            ids = [x if x and x[-1] == self.eos else [*x[: self.max_tokens - 1], self.eos] for x in ids]
        return [x or [self.eos if self.eos is not None else self.pad] for x in ids]

    def encode(self, texts: Sequence[str], *, kind: str = "query", batch: int = 256) -> np.ndarray:
        """float32 [N, H], unit length, in the order of `texts`; [0, H] for none. One tower serves both kinds
        where shared.
        """
        session = self.sessions.get(kind, self.sessions["query"])
        ids = self.tokenize(texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out = np.empty((len(ids), self.width), dtype=np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            longest = max(len(ids[i]) for i in rows)
            tokens = np.full((len(rows), longest), self.pad, dtype=np.int64)
            mask = np.zeros_like(tokens)
            for row, i in enumerate(rows):
                tokens[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
            out[rows] = session.run(None, {"ids": tokens, "mask": mask})[0]
        return out
