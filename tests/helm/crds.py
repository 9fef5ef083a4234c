"""What custom resources may look like: published models where PyPI has them, else a schema written by hand of
the fields that the chart uses (Gateway API v1, Argo Rollouts v1alpha1). It knows no other field, so a
misspelt one fails.
"""

from typing import Any

import jsonschema
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as operator

TEXT, NUMBER, ADDRESS = {"type": "string"}, {"type": "integer"}, {"type": "string", "pattern": "^https?://"}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


_MATCH = _object(
    path=_object(("type", "value"), type={"enum": ["Exact", "PathPrefix", "RegularExpression"]}, value=TEXT)
)
HTTP_ROUTE = _object(
    ("parentRefs", "rules"),
    parentRefs=_list(_object(("name",), name=TEXT, namespace=TEXT)),
    hostnames=_list(TEXT),
    rules=_list(
        _object(matches=_list(_MATCH), backendRefs=_list(_object(("name", "port"), name=TEXT, port=NUMBER)))
    ),
)
_HASH = _object(
    ("name", "valueFrom"), name=TEXT, valueFrom=_object(podTemplateHashValue={"enum": ["Latest", "Stable"]})
)
_STEP = {
    "oneOf": [
        _object(("setWeight",), setWeight={"type": "integer", "minimum": 0, "maximum": 100}),
        _object(("pause",), pause=_object(duration={"type": "string", "pattern": "^[0-9]+[smh]$"})),
    ]
}
CANARY = _object(
    ("steps",),
    steps=_list(_STEP),
    analysis=_object(templates=_list(_object(("templateName",), templateName=TEXT)), args=_list(_HASH)),
)
ROLLOUT = {
    "type": "object",
    "required": ["selector", "template", "strategy"],
    "properties": {"strategy": _object(("canary",), canary=CANARY)},
}
ANALYSIS_TEMPLATE = _object(
    ("metrics",),
    args=_list(_object(("name",), name=TEXT)),
    metrics=_list(
        _object(
            ("name", "provider"),
            name=TEXT,
            initialDelay=TEXT,
            interval=TEXT,
            failureLimit=NUMBER,
            consecutiveErrorLimit=NUMBER,
            successCondition=TEXT,
            provider=_object(prometheus=_object(("address", "query"), address=ADDRESS, query=TEXT)),
        )
    ),
)
BY_HAND = {
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTP_ROUTE,
    ("argoproj.io/v1alpha1", "Rollout"): ROLLOUT,
    ("argoproj.io/v1alpha1", "AnalysisTemplate"): ANALYSIS_TEMPLATE,
}
PUBLISHED = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): operator.ServiceMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): operator.PrometheusRule,
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
}


def validate(document: dict[str, Any]) -> bool:
    """Raises where a custom resource is not what its schema says; False where it is none that the chart may
    make.
    """
    kind = (document["apiVersion"], document["kind"])
    if kind in BY_HAND:
        jsonschema.validate(document["spec"], BY_HAND[kind])
        return True
    if kind in PUBLISHED:
        _no_field_lost(
            document["spec"],
            PUBLISHED[kind].model_validate(document).model_dump(mode="json", by_alias=True)["spec"],
        )
        return True
    return False


def _no_field_lost(given: Any, read: Any, path: str = "spec") -> None:
    """The models drop what they do not know; the API server would as well, in silence."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(read, dict) or key not in read:
                raise jsonschema.ValidationError(f"{path}.{key} is not a field")
            _no_field_lost(value, read[key], f"{path}.{key}")
    elif isinstance(given, list):
        for n, value in enumerate(given):
            _no_field_lost(value, read[n], f"{path}[{n}]")
