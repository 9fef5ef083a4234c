"""A rollout from its first step to its end, as one task: started, or taken up where it was."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from crops.arms import ALIASES, TREATMENT
from crops.config.deploy import DeployConfig
from crops.config.register import RegisterConfig
from crops.config.rollout import RolloutConfig
from crops.errors import CropsError
from crops.experiment.rollout import RUNNING, State, Verdict
from crops.services.registry import Registry
from crops.stages.base import StageReport
from crops.stages.trial import rollout
from crops.stages.trial.rollout import Place
from crops.tables import artifacts

LOG = logging.getLogger(__name__)
Seen = Callable[[State, Verdict | None], None]


def until_over(
    place: Place, plan: RolloutConfig, *, name: str, seen: Seen, wait: Callable[[float], None] = time.sleep
) -> State:
    """Starts the rollout `name`, or takes it up, and looks every plan.poll_s until it has ended; `seen` hears
    of every look. One of that name that has ended is this one only if it was of today's challenger.

    A look that fails, because the state or the registry cannot be reached, is made again; the error comes out
    where none succeeded for plan.blind_limit_s.
    """
    state = rollout.load(place) if rollout.started(place) else None
    if state is None or state.experiment != name or not _goes_on(place, state):
        state = rollout.start(place, plan, name=name)
    seen(state, None)
    looked_s = time.monotonic()
    while True:
        try:
            state, verdict = rollout.step(place, plan)
        except (CropsError, OSError) as error:
            if time.monotonic() - looked_s > plan.blind_limit_s:
                raise
            LOG.warning("the rollout cannot be looked at: %s", error)
        else:
            looked_s = time.monotonic()
            seen(state, verdict)
            if state.phase not in RUNNING:
                return state
        wait(plan.poll_s)


def _goes_on(place: Place, state: State) -> bool:
    challenger = place.registry.holder(ALIASES[TREATMENT])
    return (
        state.phase in RUNNING or challenger is None or state.treatment == place.registry.release(challenger)
    )


def run(
    state: str | Path,
    out: Path,
    plan: RolloutConfig,
    deploy: DeployConfig,
    model: RegisterConfig,
    *,
    name: str,
    prometheus: str,
    registry: str,
    readout: Path | None,
) -> StageReport:
    """Writes rollout.json, the end's state. A CropsError with the reason where the challenger was not
    promoted.

    state: folder of the state, the audit trail and features.json: an s3:// URL, or a volume that gateways and
    a task started again see too.
    """
    place = rollout.place(
        state, deploy, prometheus=prometheus, registry=Registry(registry, model.name), readout=readout
    )
    reasons: list[str] = []

    def seen(now: State, verdict: Verdict | None) -> None:
        line = (
            f"{now.phase} {now.step + 1}: {verdict.kind}: {verdict.reason}"
            if verdict
            else f"{now.experiment}: {now.phase}"
        )
        if line not in reasons[-1:]:
            print(line, flush=True)
            reasons.append(line)

    ended = until_over(place, plan, name=name, seen=seen)
    with artifacts.replacing(out) as folder:
        artifacts.write_json(
            folder / "rollout.json", {"phase": ended.phase, "step": ended.step, "reason": reasons[-1]}
        )
    if ended.phase != "promoted":
        raise CropsError(f"{name} was not promoted: {reasons[-1]}")
    return StageReport(numbers={"promoted": 1, "steps": ended.step + 1}, notes=(reasons[-1],))
