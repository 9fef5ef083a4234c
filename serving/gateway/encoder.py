"""Queries to vectors at Triton over gRPC: a deadline on every call, one retry, a breaker, and micro-batches
per model.
"""

import asyncio
import math
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from serving.gateway.breaker import Breaker
from serving.gateway.errors import Unavailable
from serving.gateway.settings import Settings

# A channel that lost its server tries again at once, not after gRPC's default of one second and up to two
# minutes.
CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

IN_A_ROW = 8
# What a probe encodes, how long it may take (two fit into the chart's readiness probe), and for how long an
# answer says that the model is well: under load a probe waits, searches are answered.
PROBE, PROBE_S, FRESH_S = "bread", 0.8, 2.0


class TritonEncoder:
    """Calls of one Triton. Make it inside the running event loop; every model has a breaker of its own."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.encode_timeout_s
        self._client = triton.InferenceServerClient(settings.triton, channel_args=CHANNEL)
        self._closed = partial(
            Breaker,
            failures=settings.breaker_failures,
            pause_s=settings.breaker_pause_s,
            clock=time.monotonic,
        )
        self._breakers: dict[str, Breaker] = {}
        self._answered_at: dict[str, float] = {}  # model -> monotonic seconds

    def breaker(self, model: str) -> Breaker:
        """The model's own."""
        return self._breakers.setdefault(model, self._closed())

    def forget(self, models: Collection[str]) -> None:
        """Drops the state of all models but these."""
        self._breakers = {model: self._breakers[model] for model in self._breakers.keys() & models}
        self._answered_at = {model: self._answered_at[model] for model in self._answered_at.keys() & models}

    async def encode(self, model: str, texts: Sequence[str], *, timeout_s: float | None = None) -> np.ndarray:
        """float32 [N, H] in the order of `texts`; Unavailable where Triton refuses, is silent, or was so just
        before.
        """
        breaker = self.breaker(model)
        if not breaker.allows():
            raise Unavailable("the encoder does not answer", code="encoder_unavailable")
        for last in (False, True):
            try:
                vectors = await self._call(model, texts, timeout_s or self._timeout_s)
            except (TimeoutError, InferenceServerException, grpc.RpcError, OSError) as error:
                breaker.failed()
                if last or breaker.open:
                    raise Unavailable(
                        f"the encoder does not answer: {_reason(error)}", code="encoder_unavailable"
                    ) from error
            else:
                breaker.succeeded()
                return vectors
        raise AssertionError("unreachable")

    async def logits(
        self, model: str, query: str, texts: Sequence[str], *, timeout_s: float
    ) -> np.ndarray | None:
        """float32 [N] of the re-ranker for each text; None where it does not answer in time. One try, apart
        from the breaker: a search without it is answered all the same.
        """
        tensors = [_strings("text", [query] * len(texts)), _strings("document", texts)]
        wanted = [triton.InferRequestedOutput("logit")]
        try:
            answer = await self._client.infer(model, tensors, outputs=wanted, client_timeout=timeout_s)
        except (TimeoutError, InferenceServerException, grpc.RpcError, OSError):
            return None
        told = answer.as_numpy("logit")
        if told is None or told.shape != (len(texts), 1) or not np.isfinite(told).all():
            return None
        return np.asarray(told[:, 0])

    async def _call(self, model: str, texts: Sequence[str], timeout_s: float) -> np.ndarray:
        tensor = _strings("text", texts)
        answer = await self._client.infer(model, [tensor], client_timeout=timeout_s)
        vectors = answer.as_numpy("vector")
        if vectors is None or vectors.shape[0] != len(texts) or not np.isfinite(vectors).all():
            raise OSError("Triton's answer is not one finite vector per text")
        self._answered_at[model] = time.monotonic()
        return vectors

    async def ensure(self, model: str, *, timeout_s: float) -> None:
        """Returns once `model` was ready IN_A_ROW times: calls take turns among Tritons, so that each has
        been asked. To load it is not for a gateway: who may do that runs code at Triton.
        """
        until_s, answers = time.monotonic() + timeout_s, 0
        while answers < IN_A_ROW:
            answers = answers + 1 if await self._loaded(model) else 0
            if answers == 0:
                if time.monotonic() > until_s:
                    raise Unavailable(
                        f"model {model} is not ready after {timeout_s:.0f} s", code="encoder_unavailable"
                    )
                await asyncio.sleep(0.2)

    async def _loaded(self, model: str) -> bool:
        try:
            return bool(await self._client.is_model_ready(model, client_timeout=PROBE_S))
        except (InferenceServerException, grpc.RpcError, OSError):
            return False

    async def ready(self, model: str) -> bool:
        """Whether Triton encodes with `model`: it has answered a search just now, or answers a probe. "Ready"
        is what Triton says of a model whose processes have died.
        """
        if time.monotonic() - self._answered_at.get(model, -math.inf) < FRESH_S:
            return True
        for _ in range(2):  # of many Tritons one may be going away
            try:
                await self._call(model, [PROBE], PROBE_S)
            except (TimeoutError, InferenceServerException, grpc.RpcError, OSError):
                continue
            return True
        return False

    async def close(self) -> None:
        """Closes the channel."""
        await self._client.close()


def _strings(name: str, texts: Sequence[str]) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_).reshape(-1, 1))
    return tensor


def _reason(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
