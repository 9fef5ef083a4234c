"""The rollout controller: looks, decides, writes down, acts. Killed anywhere, the next look goes on from what
is written down.

The state is written before anything is done about it, and what it asks for is put in place anew at every
look: doing it twice changes nothing. So there is no moment at which a kill could lose a step or leave two
champions.
"""

import fcntl
import functools
import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from crops.arms import ALIASES, ARMS, CHAMPION, CONTROL, TREATMENT
from crops.config.deploy import DeployConfig
from crops.config.rollout import ARM, Guardrail, RolloutConfig
from crops.errors import ConfigError, CropsError, InputError, ServiceError
from crops.experiment import features, rollout
from crops.experiment.rollout import ABORT, AUDIT, LOOK, STATE, Measurements, Readout, State, Verdict
from crops.release import manifest
from crops.services import prometheus
from crops.services.registry import Registry
from crops.stages.release import deploy
from crops.tables import artifacts

Clock = Callable[[], float]
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # of a file that says something else
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rollout lives and what it speaks to. `readout`: readout.json of `crops experiment`, None where
    nobody makes one.
    """

    folder: Path
    prometheus: str
    registry: Registry
    features: Path
    readout: Path | None
    deploy: DeployConfig


def place(
    folder: Path,
    deploy: DeployConfig,
    *,
    prometheus: str,
    registry: Registry,
    readout: Path | None,
    features: Path | None = None,
) -> Place:
    """The Place of a rollout whose state is in `folder`; a ConfigError where `deploy` names no manifest."""
    deploy.served()
    return Place(
        folder=folder,
        prometheus=prometheus.rstrip("/"),
        registry=registry,
        features=features or folder / "features.json",
        readout=readout,
        deploy=deploy,
    )


def _alone(
    work: Callable[Concatenate[Place, Arguments], Result],
) -> Callable[Concatenate[Place, Arguments], Result]:
    """One controller per folder: a second one is told so instead of deciding on the same state."""

    @functools.wraps(work)
    def locked(place: Place, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        place.folder.mkdir(parents=True, exist_ok=True)
        with (place.folder / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ServiceError(f"{place.folder}: another controller is at work here") from error
            return work(place, *args, **kwargs)

    return locked


@_alone
def start(
    place: Place, plan: RolloutConfig, *, name: str, salt: str | None = None, clock: Clock = time.time
) -> State:
    """Begins the canary of the registry's challenger; a ConfigError if a rollout is running or there is no
    challenger.
    """
    if (place.folder / STATE).exists() and (held := load(place)).phase in rollout.RUNNING:
        raise ConfigError(f"{place.folder}: {held.experiment} is running ({held.phase}); abort it first")
    models = place.registry
    control, treatment = (models.holder(alias) for alias in ALIASES.values())
    if control is None or treatment is None:
        raise ConfigError(
            f"{models.uri}: a rollout needs a champion and a challenger of {models.name}, found {control} "
            f"and {treatment}"
        )
    if control == treatment:
        raise ConfigError(f"{models.uri}: version {control} is champion and challenger")
    if CONTROL not in manifest.read(str(place.deploy.manifest)).arms:
        raise ConfigError(
            f"{place.deploy.manifest} names no champion; `crops deploy --arm control` puts it into "
            "service first"
        )
    now_s = clock()
    state = State(
        experiment=name,
        control=models.release(control),
        treatment=models.release(treatment),
        started_s=now_s,
        entered_s=now_s,
    )
    extra = {"salt": salt or uuid.uuid4().hex, "control_version": control, "treatment_version": treatment}
    artifacts.write_json(place.folder / "experiment.json", extra)
    for old in (LOOK, ABORT):  # of the rollout before this one
        (place.folder / old).unlink(missing_ok=True)
    _save(place, state, Verdict(rollout.WAIT, f"started: {state.treatment} against {state.control}"), now_s)
    reconcile(place, plan, state)
    return state


@_alone
def step(place: Place, plan: RolloutConfig, *, clock: Clock = time.time) -> tuple[State, Verdict]:
    """One look: puts in place what the state asks for, measures, decides, writes the decision down, acts on
    it. An abort that the console asks for comes first; its file goes last, so that a kill does not lose it.
    """
    state, now_s = load(place, repair=True), clock()
    if (request := place.folder / ABORT).exists():
        reason = _asked(request)
        state = _abort(place, plan, reason=f"console: {reason}", clock=clock)
        request.unlink()
        return state, Verdict(rollout.ROLL_BACK, f"aborted from the console: {reason}")
    try:
        if found := reconcile(place, plan, state):
            _save(place, state, Verdict(rollout.WAIT, found), now_s)
        measured = measure(place, plan, state, now_s=now_s)
    except (CropsError, OSError, *UNREADABLE) as error:
        if state.phase not in rollout.RUNNING:
            raise
        # What it cannot read or put in place leaves it blind, which has a limit: a trial goes on under eyes.
        measured = Measurements(problem=str(error) or type(error).__name__)
    verdict = rollout.decide(plan, state, measured, now_s=now_s)
    changed = rollout.after(state, verdict, measured, steps=len(plan.steps), now_s=now_s)
    if changed != state or verdict.kind != rollout.WAIT:
        _save(place, changed, verdict, now_s)
    if verdict.kind != rollout.WAIT:
        reconcile(place, plan, changed)
    _write(place.folder / LOOK, json.dumps(_line(verdict, now_s), ensure_ascii=False) + "\n")
    return changed, verdict


def _asked(request: Path) -> str:
    """The reason in an abort request; whoever leaves one that says nothing wants an end all the same."""
    try:
        return str(artifacts.read_json(request).get("reason") or "no reason given")
    except (CropsError, *UNREADABLE):
        return "no reason that can be read"


@_alone
def abort(place: Place, plan: RolloutConfig, *, reason: str, clock: Clock = time.time) -> State:
    """Ends a rollout by hand: the challenger leaves, everybody gets the champion."""
    return _abort(place, plan, reason=reason, clock=clock)


def _abort(place: Place, plan: RolloutConfig, *, reason: str, clock: Clock) -> State:
    state = load(place, repair=True)
    if state.phase in rollout.RUNNING:
        state = replace(state, phase="aborted")
        _save(place, state, Verdict(rollout.ROLL_BACK, f"aborted by hand: {reason}"), clock())
    reconcile(place, plan, state)
    return state


def load(place: Place, *, repair: bool = False) -> State:
    """The state that was written last; an InputError if there is none. repair: adds its line to the trail if
    that is missing.
    """
    raw = artifacts.read_json(place.folder / STATE)
    last = raw.pop("last", None) if isinstance(raw, dict) else None
    if last is not None and repair:
        _audit(place, last)
    try:
        return State(**raw)
    except TypeError as error:
        raise InputError(place.folder / STATE, f"not a rollout's state: {error}") from error


def reconcile(place: Place, plan: RolloutConfig, state: State) -> str:
    """Manifest, features file and aliases as `state` wants them. Again and again it changes nothing more.

    Returns what somebody else had changed in the features file, for the trail; empty: nothing.
    """
    facts = artifacts.read_json(place.folder / "experiment.json")
    if state.phase in rollout.RUNNING:
        # The release first: the features file must name only what can be served.
        if _held(place, TREATMENT) != state.treatment:
            _release(place, facts["treatment_version"], TREATMENT)
        wanted = _experiment(plan, state, facts)
        found = _edited(place, wanted)
        _write_features(place, [wanted])
        return found
    _write_features(place, [])
    if state.phase == "promoted":
        _promote(place, state, facts)
    if _held(place, TREATMENT) is not None:
        deploy.withdraw(TREATMENT, place.deploy)
    return ""


def measure(place: Place, plan: RolloutConfig, state: State, *, now_s: float) -> Measurements:
    """What Prometheus and the readout say; `problem` where Prometheus does not answer."""
    seconds = int(max(60.0, min(plan.look_back_s, now_s - state.entered_s)))
    url = place.prometheus
    try:
        values: dict[str, dict[str, float | None]] = {}
        events: dict[str, dict[str, float | None]] = {}
        for rail in _of_this_installation(plan):
            counts = {arm: prometheus.one(url, _of(rail.events, arm, seconds)) for arm in ARMS}
            events[rail.name], values[rail.name] = counts, {}
            for arm, count in counts.items():
                quantile = f"{rollout.quantile(plan, rail, arm, count or 0.0):.5f}"
                query = _of(rail.query, arm, seconds).replace("$quantile", quantile)
                values[rail.name][arm] = prometheus.one(url, query)
        served = defaultdict(set)
        for labels, value in prometheus.ask(url, f"crops_release_info{{{plan.matchers}}}"):
            if value == 1:
                served[labels.get("arm", "")].add(labels.get("release", ""))
        since = int(max(60.0, now_s - state.started_s))
        refusals = f"crops_release_rejected_total{{{plan.matchers}}}[{since}s]"
        rejected = prometheus.one(url, f"sum(increase({refusals}))")
        at_s = prometheus.one(url, "time()")
    except ServiceError as error:
        return Measurements(problem=str(error))
    users, result = _readout(place.readout)
    return Measurements(
        at_s=at_s,
        values=values,
        events=events,
        served={arm: frozenset(names) for arm, names in served.items()},
        rejected=round(rejected) if rejected is not None else None,
        users=users,
        readout=result,
    )


def _of_this_installation(plan: RolloutConfig) -> Iterator[Guardrail]:
    """The guardrails with plan.matchers in each question: another installation's arms have the same names."""
    within = ",".join(filter(None, ["$in", plan.matchers]))
    for rail in plan.guardrails:
        questions = {key: getattr(rail, key).replace("$in", within) for key in ("query", "events")}
        yield rail.model_copy(update=questions)


def _of(query: str, arm: str, seconds: int) -> str:
    return query.replace("$in", f'{ARM}="{arm}"').replace("$window", f"{seconds}s")


def _readout(path: Path | None) -> tuple[int | None, Readout | None]:
    if path is None or not path.exists():
        return None, None
    result = artifacts.read_json(path)
    users = sum(int(result["users"][arm]) for arm in ARMS)
    return users, Readout(
        verdict=result["verdict"], reason=" ".join(result["reasons"]), users=users, primary=result["primary"]
    )


def _experiment(plan: RolloutConfig, state: State, facts: dict[str, Any]) -> features.Experiment:
    return features.Experiment.parse(
        {
            "name": state.experiment,
            "salt": facts["salt"],
            "coverage": rollout.coverage(plan, state),
            CONTROL: state.control,
            TREATMENT: state.treatment,
            "start": datetime.fromtimestamp(state.started_s, UTC),
        }
    )


def _edited(place: Place, wanted: features.Experiment) -> str:
    """What another hand changed in the features file, which is written anew; a ConfigError where the plan
    itself narrows what runs.
    """
    try:
        held = features.parse(features.load(place.features), source=str(place.features))
        running = [one for one in held if one.name == wanted.name]
    except (CropsError, OSError, *UNREADABLE) as error:
        return f"the features file was restored: {error}"
    for one in running:
        try:
            features.check_change(one.model_copy(update={"coverage": 0.0}), wanted)
        except ConfigError as error:
            return f"the features file was restored: it had changed: {error}"
        features.check_change(one, wanted)
    return ""


def _write_features(place: Place, experiments: list[features.Experiment]) -> None:
    text = json.dumps(features.render(experiments), indent=2, sort_keys=True) + "\n"
    try:
        same = place.features.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):  # absent, or what nobody can read
        same = False
    if not same:
        _write(place.features, text)


def _promote(place: Place, state: State, facts: dict[str, Any]) -> None:
    """The alias first, then what is served: one alias has one holder, and the manifest follows it."""
    version, before = facts["treatment_version"], facts["control_version"]
    # The alias may be taken from the champion of the start only; it may be the challenger's already.
    expected = version if place.registry.holder(CHAMPION) == version else before
    place.registry.move(CHAMPION, version, expected=expected, reason=f"rollout {state.experiment}")
    if _held(place, CONTROL) != state.treatment:
        _release(place, version, CONTROL)


def _held(place: Place, arm: str) -> str | None:
    assert place.deploy.manifest is not None
    held = manifest.read(place.deploy.manifest).arms.get(arm)
    return held.uri if held else None


def _release(place: Place, version: str, arm: str) -> None:
    deploy.release(place.registry, version, arm, place.deploy)


def _save(place: Place, state: State, verdict: Verdict, now_s: float) -> None:
    """The state with the line of the audit trail that belongs to it, then the trail: a kill between them
    loses neither.
    """
    line = _line(verdict, now_s) | {"phase": state.phase, "step": state.step}
    _write(
        place.folder / STATE, json.dumps({**asdict(state), "last": line}, indent=2, ensure_ascii=False) + "\n"
    )
    _audit(place, line)


def _line(verdict: Verdict, now_s: float) -> dict[str, Any]:
    at = datetime.fromtimestamp(now_s, UTC).isoformat()
    return {"at": at, "verdict": verdict.kind, "reason": verdict.reason}


def _audit(place: Place, line: dict[str, Any]) -> None:
    """Appends the state's line to the trail unless it is its last one; a torn last line is cut off."""
    path = place.folder / AUDIT
    trail = path.read_bytes() if path.exists() else b""
    whole = trail[: trail.rfind(b"\n") + 1]
    text = (json.dumps(line, ensure_ascii=False) + "\n").encode()
    if trail.endswith(text):
        return
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(len(whole))
        file.seek(len(whole))
        if not whole.endswith(text):
            file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
