"""The rollout controller: looks, decides, writes down, acts. Killed anywhere, the next look goes on from what
is written down.

The state is written before anything is done about it, and what it asks for is put in place anew at every
look: doing it twice changes nothing. So there is no moment at which a kill could lose a step or leave two
champions. A promotion alone is put in place once: whoever goes back to an older champion later is not
overruled. Of several controllers (the chart's, a CI's, a person's) that decide on the same state one writes;
the others are told so and go on from what it wrote.
"""

import contextlib
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crops.arms import ALIASES, ARMS, CHAMPION, CONTROL, TREATMENT
from crops.config.deploy import DeployConfig
from crops.config.rollout import ARM, Guardrail, RolloutConfig
from crops.errors import ConfigError, CropsError, InputError, ServiceError
from crops.experiment import features, reach, rollout
from crops.experiment.rollout import ABORT, AUDIT, LOOK, STATE, Measurements, Readout, State, Verdict
from crops.release import document, manifest
from crops.release.document import Conflict
from crops.services import prometheus
from crops.services.registry import Registry
from crops.stages.release import deploy
from crops.tables import artifacts

Clock = Callable[[], float]
# Of a file that says something else.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError)
TRIES = 5  # of a change that must be made, while others write


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a rollout lives and what it speaks to. `folder`, `features`: paths or s3:// URLs. `readout`:
    readout.json of `crops experiment`, None where nobody makes one.
    """

    folder: str
    prometheus: str
    registry: Registry
    features: str
    readout: Path | None
    deploy: DeployConfig

    def of(self, name: str) -> str:
        """Path or URL of one of the files in the folder."""
        return f"{self.folder.rstrip('/')}/{name}"


def place(
    folder: str | Path,
    deploy: DeployConfig,
    *,
    prometheus: str,
    registry: Registry,
    readout: Path | None,
    features: str | None = None,
) -> Place:
    """The Place of a rollout whose state is in `folder`, a path or an s3:// URL; a ConfigError where it is
    another URL, or where `deploy` names no manifest.
    """
    deploy.served()
    made = Place(
        folder=str(folder),
        prometheus=prometheus.rstrip("/"),
        registry=registry,
        features=features or f"{str(folder).rstrip('/')}/features.json",
        readout=readout,
        deploy=deploy,
    )
    for url in (made.folder, made.features):
        document.conditional(url)
    return made


@dataclass(slots=True, kw_only=True)
class _Held:
    """What is written down, as it was read before anything was decided. The features are read first: with an
    old state come old features, so what it asks for is refused too.

    facts: salt, control_version, treatment_version; once the challenger is champion, promoted. last: the
    trail's line that belongs to the state. state_at, features_at: what a write is compared with.
    """

    state: State
    facts: dict[str, Any]
    last: dict[str, Any] | None = None
    state_at: document.Held
    features_at: document.Held


def start(
    place: Place, plan: RolloutConfig, *, name: str, salt: str | None = None, clock: Clock = time.time
) -> State:
    """Begins the canary of the registry's challenger; a ConfigError if a rollout is running or there is no
    challenger.
    """
    if started(place):
        _over(place, plan)
    features_at, state_at = document.read(place.features), document.read(place.of(STATE))
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
    facts = {"salt": salt or uuid.uuid4().hex, "control_version": control, "treatment_version": treatment}
    for old in (LOOK, ABORT):  # of the rollout before this one
        document.remove(place.of(old))
    begun = _Held(state=state, facts=facts, state_at=state_at, features_at=features_at)
    _save(place, begun, Verdict(rollout.WAIT, f"started: {state.treatment} against {state.control}"), now_s)
    # The chart's controller may look already while a release is fetched here: then that one puts it in place.
    with contextlib.suppress(Conflict):
        reconcile(place, plan, begun)
    return state


def _over(place: Place, plan: RolloutConfig) -> None:
    """A ConfigError if a rollout is running. A promotion that a kill cut short is finished: the next state
    would forget it.
    """
    last = _held(place)
    if last.state.phase in rollout.RUNNING:
        raise ConfigError(
            f"{place.folder}: {last.state.experiment} is running ({last.state.phase}); abort it first"
        )
    ours = (last.facts["control_version"], last.facts["treatment_version"])
    if not _finished(last) and place.registry.holder(CHAMPION) in ours:
        reconcile(place, plan, last)


def step(place: Place, plan: RolloutConfig, *, clock: Clock = time.time) -> tuple[State, Verdict]:
    """One look: puts in place what the state asks for, measures, decides, writes the decision down, acts on
    it. An abort that the console asks for comes first; its file goes last, so that a kill does not lose it.

    Where another controller wrote first, nothing is decided: its state, and a verdict to wait that says so.
    """
    try:
        return _look(place, plan, clock)
    except Conflict as error:
        return load(place), Verdict(rollout.WAIT, f"another controller was first, its state goes on: {error}")


def _look(place: Place, plan: RolloutConfig, clock: Clock) -> tuple[State, Verdict]:
    held, now_s = _held(place), clock()
    request = document.read(place.of(ABORT)).content
    if request is not None and held.state.phase not in rollout.RUNNING:
        document.remove(place.of(ABORT))  # it came too late, or was acted on before a kill
    elif request is not None:
        reason = _asked(request)
        _abort(place, plan, held, reason=f"console: {reason}", clock=clock)
        document.remove(place.of(ABORT))
        return held.state, Verdict(rollout.ROLL_BACK, f"aborted from the console: {reason}")
    try:
        if edit := reconcile(place, plan, held):
            _save(place, held, Verdict(rollout.WAIT, edit), now_s)
        measured = measure(place, plan, held.state, now_s=now_s)
    except Conflict:
        raise
    except (CropsError, OSError, *UNREADABLE) as error:
        if held.state.phase not in rollout.RUNNING:
            raise
        # What it cannot read or put in place leaves it blind, which has a limit: a trial goes on under eyes.
        measured = Measurements(problem=str(error) or type(error).__name__)
    verdict = rollout.decide(plan, held.state, measured, now_s=now_s)
    changed = rollout.after(held.state, verdict, measured, steps=len(plan.steps), now_s=now_s)
    if changed != held.state or verdict.kind != rollout.WAIT:
        held.state = changed
        _save(place, held, verdict, now_s)
    if verdict.kind != rollout.WAIT:
        reconcile(place, plan, held)
    look = json.dumps(_line(verdict, now_s), ensure_ascii=False) + "\n"
    document.put(place.of(LOOK), look.encode())
    return changed, verdict


def _asked(request: bytes) -> str:
    """The reason in an abort request; whoever leaves one that says nothing wants an end all the same."""
    try:
        return str(json.loads(request).get("reason") or "no reason given")
    except UNREADABLE:
        return "no reason that can be read"


def abort(place: Place, plan: RolloutConfig, *, reason: str, clock: Clock = time.time) -> State:
    """Ends a rollout by hand: the challenger leaves, everybody gets the champion. Whoever else writes
    meanwhile, it ends.
    """
    for _ in range(TRIES - 1):
        try:
            return _abort(place, plan, _held(place), reason=reason, clock=clock)
        except Conflict:
            continue
    return _abort(place, plan, _held(place), reason=reason, clock=clock)


def _abort(place: Place, plan: RolloutConfig, held: _Held, *, reason: str, clock: Clock) -> State:
    if held.state.phase in rollout.RUNNING:
        held.state = replace(held.state, phase="aborted")
        _save(place, held, Verdict(rollout.ROLL_BACK, f"aborted by hand: {reason}"), clock())
    reconcile(place, plan, held)
    return held.state


def began(folder: str) -> datetime | None:
    """When the rollout began whose state is in `folder`, a path or an s3:// URL; None: none was started."""
    url = f"{folder.rstrip('/')}/{STATE}"
    state_at = document.read(url)
    if state_at.content is None:
        return None
    return datetime.fromtimestamp(_parsed(url, state_at)[0].started_s, UTC)


def started(place: Place) -> bool:
    """Whether a rollout was ever started here."""
    return began(place.folder) is not None


def load(place: Place) -> State:
    """The state that was written last; an InputError if there is none."""
    return _parsed(place.of(STATE), document.read(place.of(STATE)))[0]


def trail(place: Place) -> list[str]:
    """Every move with its reason, a line of JSON each, oldest first."""
    return (document.read(place.of(AUDIT)).content or b"").decode("utf-8", errors="replace").splitlines()


def _held(place: Place) -> _Held:
    """What is written down; a line that is missing from the trail is added."""
    features_at, state_at = document.read(place.features), document.read(place.of(STATE))
    state, raw = _parsed(place.of(STATE), state_at)
    if raw.get("last") is not None:
        _audit(place, raw["last"])
    return _Held(
        state=state, facts=raw["facts"], last=raw["last"], state_at=state_at, features_at=features_at
    )


def _parsed(url: str, state_at: document.Held) -> tuple[State, dict[str, Any]]:
    """The state, and what else the file says."""
    if state_at.content is None:
        raise InputError(url, "not there: no rollout was started")
    try:
        raw = json.loads(state_at.content)
        beside = {"facts": dict(raw["facts"]), "last": raw["last"] and dict(raw["last"])}
        if lacking := {"salt", "control_version", "treatment_version"} - beside["facts"].keys():
            raise ValueError(f"facts lack {', '.join(sorted(lacking))}")
        return State(**{key: value for key, value in raw.items() if key not in beside}), beside
    except UNREADABLE as error:
        raise InputError(url, f"not a rollout's state: {type(error).__name__} {error}") from error


def reconcile(place: Place, plan: RolloutConfig, held: _Held) -> str:
    """Manifest, features file and aliases as the state wants them. Again and again it changes nothing more.

    Returns what somebody else had changed in the features file, for the trail; empty: nothing.
    """
    state, facts = held.state, held.facts
    if state.phase in rollout.RUNNING:
        # The release first: the features file must name only what can be served.
        if _served(place, TREATMENT) != state.treatment:
            _release(place, facts["treatment_version"], TREATMENT)
        experiment = _experiment(plan, state, facts)
        edit = _edited(place, held, experiment)
        _write_features(place, held, [experiment])
        return edit
    _write_features(place, held, [])
    # Once: who goes back to an older champion later has the last word.
    if not _finished(held):
        _promote(place, state, facts)
        held.facts = {**facts, "promoted": True}
        _write_state(place, held)
    if _served(place, TREATMENT) is not None:
        deploy.withdraw(TREATMENT, place.deploy)
    return ""


def _finished(held: _Held) -> bool:
    """Whether nothing is left to be done of a promotion."""
    return held.state.phase != "promoted" or bool(held.facts.get("promoted"))


def measure(place: Place, plan: RolloutConfig, state: State, *, now_s: float) -> Measurements:
    """What Prometheus and the readout say; `problem` where Prometheus does not answer."""
    seconds = int(max(rollout.LEAST_S, min(plan.look_back_s, now_s - state.entered_s)))
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
        since = int(max(rollout.LEAST_S, now_s - state.started_s))
        refusals = f"crops_release_rejected_total{{{plan.matchers}}}[{since}s]"
        rejected = prometheus.one(url, f"sum(increase({refusals}))")
        reached = _reached(url, plan, state.experiment, since)
        at_s = prometheus.one(url, "time()")
    except ServiceError as error:
        return Measurements(problem=str(error))
    counted, result = _readout(place.readout, state)
    return Measurements(
        at_s=at_s,
        values=values,
        events=events,
        served={arm: frozenset(names) for arm, names in served.items()},
        rejected=round(rejected) if rejected is not None else None,
        users=max(numbers) if (numbers := [n for n in (reached, counted) if n is not None]) else None,
        readout=result,
    )


def _reached(url: str, plan: RolloutConfig, experiment: str, seconds: int) -> int | None:
    """Users of both arms by what gateways saw since the start, restarted ones too; None: none reports any.

    Ranks only grow while a gateway lives, so a hundred looks at them do for weeks; each sample of many
    gateways would be more than Prometheus loads for one question.
    """
    own = ",".join(filter(None, [f"experiment={json.dumps(experiment)}", plan.matchers]))
    looks = f"{seconds}s:{max(1, seconds // 100)}s"
    most = f"max by (arm, register) (max_over_time(crops_experiment_users_rank{{{own}}}[{looks}]))"
    ranks = defaultdict(list)
    for labels, rank in prometheus.ask(url, most):
        ranks[labels.get("arm", "")].append(rank)
    return round(sum(reach.users(of_arm) for of_arm in ranks.values())) if ranks else None


def _of_this_installation(plan: RolloutConfig) -> Iterator[Guardrail]:
    """The guardrails with plan.matchers in each question: another installation's arms have the same names."""
    within = ",".join(filter(None, ["$in", plan.matchers]))
    for rail in plan.guardrails:
        questions = {key: getattr(rail, key).replace("$in", within) for key in ("query", "events")}
        yield rail.model_copy(update=questions)


def _of(query: str, arm: str, seconds: int) -> str:
    return query.replace("$in", f'{ARM}="{arm}"').replace("$window", f"{seconds}s")


def _readout(path: Path | None, state: State) -> tuple[int | None, Readout | None]:
    """Users and verdict; of a readout that looks further back than this rollout, only that it does."""
    if path is None or not path.exists():
        return None, None
    result = artifacts.read_json(path)
    since = result["period"]["since"]
    if since is None:
        return None, None
    if not rollout.is_of(state.started_s, since):
        reason = f"it begins at {since}, before this rollout: crops experiment --rollout STATE"
        return None, Readout(verdict="of an earlier trial", reason=reason, users=0, primary=result["primary"])
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


def _edited(place: Place, held: _Held, experiment: features.Experiment) -> str:
    """What another hand changed in the features file, which is written anew; a ConfigError where the plan
    itself narrows what runs.
    """
    source = place.features
    try:
        experiments = features.parse(features.payload(held.features_at.content, source=source), source=source)
        running = [one for one in experiments if one.name == experiment.name]
    except (CropsError, *UNREADABLE) as error:
        return f"the features file was restored: {error}"
    for one in running:
        try:
            features.check_change(one.model_copy(update={"coverage": 0.0}), experiment)
        except ConfigError as error:
            return f"the features file was restored: it had changed: {error}"
        features.check_change(one, experiment)
    return ""


def _write_features(place: Place, held: _Held, experiments: list[features.Experiment]) -> None:
    text = (json.dumps(features.render(experiments), indent=2, sort_keys=True) + "\n").encode()
    if held.features_at.content != text:
        held.features_at = document.write(place.features, text, held.features_at)


def _promote(place: Place, state: State, facts: dict[str, Any]) -> None:
    """The alias first, then what is served: one alias has one holder, and the manifest follows it."""
    version, before = facts["treatment_version"], facts["control_version"]
    # The alias may be taken from the champion of the start only; it may be the challenger's already.
    expected = version if place.registry.holder(CHAMPION) == version else before
    place.registry.move(CHAMPION, version, expected=expected, reason=f"rollout {state.experiment}")
    if _served(place, CONTROL) != state.treatment:
        _release(place, version, CONTROL)


def _served(place: Place, arm: str) -> str | None:
    assert place.deploy.manifest is not None
    release = manifest.read(place.deploy.manifest).arms.get(arm)
    return release.uri if release else None


def _release(place: Place, version: str, arm: str) -> None:
    deploy.release(place.registry, version, arm, place.deploy)


def _save(place: Place, held: _Held, verdict: Verdict, now_s: float) -> None:
    """The state with the line of the audit trail that belongs to it, then the trail: a kill between them
    loses neither. A Conflict, and nothing done, where the state is no longer the one that was read.
    """
    held.last = _line(verdict, now_s) | {"phase": held.state.phase, "step": held.state.step}
    _write_state(place, held)
    _audit(place, held.last)


def _write_state(place: Place, held: _Held) -> None:
    whole = {**asdict(held.state), "facts": held.facts, "last": held.last}
    text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    held.state_at = document.write(place.of(STATE), text.encode(), held.state_at)


def _line(verdict: Verdict, now_s: float) -> dict[str, Any]:
    at = datetime.fromtimestamp(now_s, UTC).isoformat()
    return {"at": at, "verdict": verdict.kind, "reason": verdict.reason}


def _audit(place: Place, line: dict[str, Any]) -> None:
    """Adds the state's line to the trail unless it is there; a torn last line is cut off."""
    text = (json.dumps(line, ensure_ascii=False) + "\n").encode()
    for tries in reversed(range(TRIES)):
        trail_at = document.read(place.of(AUDIT))
        whole = (trail_at.content or b"")[: (trail_at.content or b"").rfind(b"\n") + 1]
        if text in whole.splitlines(keepends=True):
            return
        try:
            document.write(place.of(AUDIT), whole + text, trail_at)
            return
        except Conflict:
            if not tries:
                raise
