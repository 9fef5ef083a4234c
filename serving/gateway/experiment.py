"""The running experiment as people look at it: where the rollout stands, what the readout says, and a request
to abort it.

The gateway decides nothing. It reads what the rollout controller and `crops experiment` wrote, and leaves an
abort request beside the state, which the controller acts on at its next look. Half-written or missing files
are "not there yet".
"""

import json
from pathlib import Path
from typing import Any

from crops.arms import ARMS
from crops.errors import CropsError
from crops.experiment import features
from crops.experiment.rollout import ABORT, AUDIT, LOOK, STATE, is_of
from crops.release import document

SHOWN = (*ARMS, "lift", "low", "high", "verdict", "paper_lift", "higher_is_better", "means")
TRAIL = 30


def status(rollout: str | None, features_file: str | None, readout: Path | None) -> dict[str, Any]:
    """`rollout`: the controller's folder, `features_file`: what gateways go by, each a path or an s3:// URL;
    `readout`: the folder of readout.json.
    """
    state = _json(f"{rollout}/{STATE}") if rollout else None
    page: dict[str, Any] = {"rollout": None, "readout": None, "coverage": _coverage(features_file)}
    if rollout is not None and state:
        page["rollout"] = {
            **{
                key: state.get(key)
                for key in ("experiment", *ARMS, "phase", "step", "started_s", "entered_s")
            },
            "next": _json(f"{rollout}/{LOOK}"),
            "abort_requested": _json(f"{rollout}/{ABORT}"),
            "trail": _trail(f"{rollout}/{AUDIT}"),
        }
    measured = _json(str(readout / "readout.json")) if readout else None
    if measured and not _of_before(measured, state):
        metrics = {
            name: {key: m.get(key) for key in SHOWN}
            for name, m in _held(measured.get("metrics")).items()
            if isinstance(m, dict)
        }
        page["readout"] = {
            **{
                key: measured.get(key)
                for key in ("verdict", "reasons", "primary", "users", "srm", "period", "window_s")
            },
            "metrics": metrics,
        }
    return page


def _of_before(measured: dict[str, Any], state: dict[str, Any] | None) -> bool:
    """Whether the readout is of the rollout before: its verdict beside the arms of this one would mislead."""
    try:
        return state is not None and not is_of(state["started_s"], measured["period"]["since"])
    except (KeyError, TypeError, ValueError):  # one of them does not say
        return False


def request_abort(rollout: str, reason: str) -> None:
    """Leaves the request; an OSError or ServiceError where it cannot be written from here."""
    document.put(f"{rollout}/{ABORT}", json.dumps({"reason": reason}, ensure_ascii=False).encode())


def _held(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _coverage(url: str | None) -> float | None:
    try:
        experiments = features.parse(features.load(url)) if url else []
    except Exception:  # whatever is wrong with it is the follower's to say
        return None
    return experiments[0].coverage if experiments else 0.0


def _trail(url: str) -> list[dict[str, Any]]:
    try:
        lines = (document.read(url).content or b"").decode("utf-8").splitlines()[-TRAIL:]
    except (CropsError, ValueError):
        return []
    moves = []
    for line in lines:
        try:
            moves.append(json.loads(line))
        except ValueError:  # torn; the controller mends it
            continue
    return moves


def _json(url: str) -> dict[str, Any] | None:
    try:
        text = (document.read(url).content or b"").decode("utf-8")
        content = json.loads(text, parse_constant=lambda _: None)  # an answer in JSON has no NaN
    except (CropsError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
