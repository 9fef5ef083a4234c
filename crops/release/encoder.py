"""The exported encoder without torch: `tokenizers` and ONNX Runtime only. Evaluation of a champion and
serving use it.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from crops import cores
from crops.errors import InputError
from crops.release import layout
from crops.text import normalise_query

FILES = {"query": layout.QUERY_ENCODER, "document": layout.DOCUMENT_ENCODER}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever its reader says of a damaged file as an InputError with its name."""
    try:
        yield
    # Neither tokenizers nor ONNX Runtime has a base for its errors but Exception.
    except Exception as error:
        raise InputError(path, f"not readable, expected what `crops export` wrote ({error})") from error


class OnnxEncoder:
    """Reads the encoder's files from a folder that `crops export` wrote, or from a release, whose files are
    checked. threads: of ONNX Runtime for one call; 0: one per core that this process may use.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int = 0,
        providers: Sequence[str | tuple[str, dict[str, str]]] = ("CPUExecutionProvider",),
        provider_options: Sequence[dict[str, str]] | None = None,
    ) -> None:
        folder = Path(folder)
        for name in layout.ENCODER_FILES:
            if not (folder / name).is_file():
                raise InputError(folder / name, "no such file; expected a folder that `crops export` wrote")
        if layout.is_release(folder):
            layout.check(folder, wanted=layout.of_encoder)
        with _readable(folder / layout.ENCODER):
            facts = json.loads((folder / layout.ENCODER).read_text(encoding="utf-8"))
            self.width, self.max_tokens = int(facts["width"]), int(facts["max_tokens"])
            # None in releases before there were any.
            self.prompts: dict[str, str] = facts.get("prompts") or {}
            self.pooling, self.eos, self.pad = str(facts["pooling"]), facts["eos_id"], facts["pad_id"]
        with _readable(folder / layout.TOKENIZER):
            self.tokenizer = Tokenizer.from_file(str(folder / layout.TOKENIZER))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_tokens)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores.count()
        self.sessions = {}
        for kind, name in FILES.items():
            if (folder / name).is_file():
                with _readable(folder / name):
                    self.sessions[kind] = onnxruntime.InferenceSession(
                        folder / name,
                        options,
                        providers=list(providers),
                        provider_options=list(provider_options) if provider_options else None,
                    )

    def tokenize(self, texts: Sequence[str], kind: str = "query") -> list[list[int]]:
        """Token ids as in training: normalised, after the prompt of its kind, truncated, closed by the end
        token if the last token is pooled.
        """
        prompt = self.prompts.get(kind, "")
        ids = [e.ids for e in self.tokenizer.encode_batch([prompt + normalise_query(t) for t in texts])]
        if self.pooling == "last" and self.eos is not None:
            ids = [x if x and x[-1] == self.eos else [*x[: self.max_tokens - 1], self.eos] for x in ids]
        return [x or [self.eos if self.eos is not None else self.pad] for x in ids]

    def encode(self, texts: Sequence[str], *, kind: str = "query", batch: int = 256) -> np.ndarray:
        """float32 [N, H], unit length, in the order of `texts`; [0, H] for none. A shared tower serves
        both kinds.
        """
        session = self.sessions.get(kind, self.sessions["query"])
        ids = self.tokenize(texts, kind)
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
