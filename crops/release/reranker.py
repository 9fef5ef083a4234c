"""θ's cross-encoder without torch: what a release orders the first results by, beside the dense score."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from crops.errors import InputError
from crops.release import layout
from crops.text import normalise_query

# Segment ids of the cross-encoder that is made here, see crops.discriminator.model.
QUERY, OTHER, MATCH = 0, 1, 2


class OnnxReranker:
    """Reads the re-ranker's files from a folder that `crops export` wrote, or from a release. threads: of
    ONNX Runtime.
    """

    def __init__(
        self, folder: Path, *, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        for name in layout.RERANKER_FILES:
            if not (folder / name).is_file():
                raise InputError(folder / name, "no such file; expected an export with export.reranker")
        facts = json.loads((folder / layout.RERANKER).read_text(encoding="utf-8"))
        self.small, self.max_tokens, self.pad = bool(facts["small"]), facts["max_tokens"], facts["pad_id"]
        self.separator = facts["sep_id"]
        self.tokenizer = Tokenizer.from_file(str(folder / layout.RERANKER_TOKENIZER))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        if not self.small:
            self.tokenizer.enable_truncation(self.max_tokens, strategy="longest_first")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = folder / layout.RERANKER_MODEL
        self.session = onnxruntime.InferenceSession(model, options, providers=list(providers))
        self.inputs = {one.name for one in self.session.get_inputs()}

    def tokenize(self, queries: Sequence[str], texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Token and segment ids per pair, as CrossEncoder.tokenize."""
        q, d = ([normalise_query(x) for x in side] for side in (queries, texts))
        if not self.small:
            pairs = self.tokenizer.encode_batch(list(zip(q, d, strict=True)))
            return [(pair.ids, pair.type_ids) for pair in pairs]
        read = (self.tokenizer.encode_batch(side) for side in (q, d))
        rows = []
        for head, body in zip(*([one.ids for one in side] for side in read), strict=True):
            head = head[: self.max_tokens // 2 - 1]
            body = body[: self.max_tokens - len(head) - 1]
            own = set(head)
            kinds = [QUERY] * (len(head) + 1) + [MATCH if token in own else OTHER for token in body]
            rows.append(([*head, self.separator, *body], kinds))
        return rows

    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """float32 [N], N at least 1."""
        rows = self.tokenize(queries, texts)
        longest = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), longest), self.pad, dtype=np.int64)
        segments, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, (tokens, kinds) in enumerate(rows):
            ids[row, : len(tokens)], segments[row, : len(tokens)], mask[row, : len(tokens)] = tokens, kinds, 1
        fields = {"ids": ids, "mask": mask, "segments": segments}
        out: np.ndarray = self.session.run(None, {n: x for n, x in fields.items() if n in self.inputs})[0]
        return out
