"""Triton Python backend: strings in, unit vectors out, encoded by the very code that training and evaluation
use.

A copy of this file is version 1 of every model `query_encoder-*`. It reads nothing but its own folder:
`release/` (ONNX, tokenizer) and `lib/` (crops.text and crops.release.encoder), so that any Triton with
onnxruntime and tokenizers runs it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))

from crops.release import layout  # noqa: E402  the copies in lib/
from crops.release.encoder import OnnxEncoder  # noqa: E402
from crops.release.reranker import OnnxReranker  # noqa: E402


class TritonPythonModel:
    """One instance: an ONNX Runtime session with `threads` threads, in a process of its own."""

    def initialize(self, args):
        """Opens the release's encoder; what is wrong with it is why Triton refuses to load the model."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        values = {name: value["string_value"] for name, value in parameters.items()}
        providers = values["providers"].split(",")
        options = [
            {"device_id": args["model_instance_device_id"]} if args["model_instance_kind"] == "GPU" else {}
        ]
        self.encoder = OnnxEncoder(
            HERE / "release",
            threads=int(values["threads"]),
            providers=providers,
            provider_options=options + [{} for _ in providers[1:]],
        )
        self.reranker = None
        if (HERE / "release" / layout.RERANKER).is_file():
            self.reranker = OnnxReranker(
                HERE / "release", threads=int(values["threads"]), providers=providers
            )

    def execute(self, requests):
        """All texts of all requests in one call of the encoder; a request that is not UTF-8 fails alone, and
        one with documents is the re-ranker's.
        """
        if self.reranker is None:
            return self._encoded(requests)
        beside = [pb_utils.get_input_tensor_by_name(r, "document") is not None for r in requests]
        plain = iter(self._encoded([r for r, has in zip(requests, beside, strict=True) if not has]))
        return [self._read(r) if has else next(plain) for r, has in zip(requests, beside, strict=True)]

    def _read(self, request):
        assert self.reranker is not None
        queries, texts = _texts(request), _texts(request, "document")
        if queries is None or texts is None:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("text is not UTF-8"))
        logits = self.reranker.logits(queries, texts).astype(np.float32)[:, None]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("logit", logits)])

    def _encoded(self, requests):
        read = [_texts(request) for request in requests]
        vectors = self.encoder.encode(
            [text for texts in read if texts is not None for text in texts]
        )  # [N, H]
        responses, start = [], 0
        for texts in read:
            if texts is None:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("text is not UTF-8")))
                continue
            tensor = pb_utils.Tensor("vector", vectors[start : start + len(texts)])
            responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
            start += len(texts)
        return responses


def _texts(request, name="text"):
    """The request's texts, or None where one is not UTF-8."""
    rows = pb_utils.get_input_tensor_by_name(request, name).as_numpy()  # bytes [n, 1]
    try:
        return [row.decode() for row in np.ravel(rows)]
    except UnicodeDecodeError:
        return None
