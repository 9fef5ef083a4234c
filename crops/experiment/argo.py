"""The rollout's guardrails as Argo Rollouts AnalysisTemplates: the same questions and limits, for a change of
an image.

`crops rollout` compares arms, which serve different releases; a new image of the gateway or of Triton serves
the same one, so here the new pods are compared with the old, told apart by the pod hash that Argo writes on
them.
"""

from collections.abc import Iterable
from typing import Any

from crops.config.rollout import GUARDRAILS, Guardrail

CANARY, STABLE = (
    f'namespace="NAMESPACE",rollouts_pod_template_hash="{{{{args.{side}-hash}}}}"'
    for side in ("canary", "stable")
)
WINDOW = "5m"


def _failures(metric: str) -> str:
    return f"sum(increase({metric}{{$in}}[$window])) or vector(0)"


# Triton's own, by its documented metrics: failed requests, and microseconds of queue per request.
OF_TRITON = (
    Guardrail(
        name="failed requests",
        kind="difference",
        limit=0.005,
        min_events=200,
        query=_failures("nv_inference_request_failure"),
        events="sum(increase(nv_inference_request_success{$in}[$window]))",
    ),
    Guardrail(
        name="compute time",
        kind="ratio",
        limit=1.25,
        min_events=200,
        query="sum(rate(nv_inference_compute_infer_duration_us{$in}[$window])) "
        "/ sum(rate(nv_inference_request_success{$in}[$window]))",
        events="sum(increase(nv_inference_request_success{$in}[$window]))",
    ),
)


def templates() -> list[dict[str, Any]]:
    """One AnalysisTemplate for the gateway's image, one for Triton's. FULLNAME, NAMESPACE and PROMETHEUS are
    the chart's to replace.
    """
    return [_template("gateway", GUARDRAILS), _template("triton", OF_TRITON)]


def _template(component: str, guardrails: Iterable[Guardrail]) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": f"FULLNAME-{component}-guardrails"},
        "spec": {
            "args": [{"name": "canary-hash"}, {"name": "stable-hash"}],
            "metrics": [_metric(rail) for rail in guardrails],
        },
    }


def _metric(rail: Guardrail) -> dict[str, Any]:
    """Too few events give an empty vector, which says nothing: it is neither a success nor a failure."""
    query, condition = _question(rail)
    guard = " and ".join(f"(({_of(rail.events, side)}) >= {rail.min_events:g})" for side in (CANARY, STABLE))
    return {
        "name": rail.name.replace(" ", "-"),
        "initialDelay": WINDOW,
        "interval": "1m",
        # Ours: one bad look in ten may be chance.
        "failureLimit": 2,
        "consecutiveErrorLimit": 5,
        "successCondition": f"len(result) == 0 || {condition}",
        "provider": {"prometheus": {"address": "PROMETHEUS", "query": f"({query}) and {guard}"}},
    }


def _question(rail: Guardrail) -> tuple[str, str]:
    """PromQL of one number, and the condition on it under which the new pods are no worse than the limit."""
    canary, stable = (_of(rail.query, side, rail.quantile) for side in (CANARY, STABLE))
    counts = (_of(rail.events, side) for side in (CANARY, STABLE))
    shares = [f"(({part}) / ({whole}))" for part, whole in zip((canary, stable), counts, strict=True)]
    if rail.kind == "count":
        return canary, f"result[0] <= {rail.limit:g}"
    if rail.kind == "ratio":
        return f"({canary}) / ({stable})", f"result[0] <= {rail.limit:g}"
    if rail.kind == "difference":
        return f"{shares[0]} - {shares[1]}", f"result[0] <= {rail.limit:g}"
    # A rate: without the controller's always-valid bound, chance must not decide, so the limit is five times
    # as wide (ours).
    wide = 5 * rail.limit
    relative = f"{shares[0]} / {shares[1]} - 1"
    return relative, f"result[0] >= {-wide:g}" if rail.higher_is_better else f"result[0] <= {wide:g}"


def _of(query: str, side: str, quantile: float | None = None) -> str:
    # Argo does not know how many events there were: it asks for the plain quantile, and forgives two bad
    # looks.
    return query.replace("$in", side).replace("$window", WINDOW).replace("$quantile", f"{quantile or 0:g}")
