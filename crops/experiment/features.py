"""Which experiments run: our own words on one side, a GrowthBook features file on the other, each made from
the other.

The file is plain GrowthBook JSON (one feature, `release`, a rule per experiment), so that GrowthBook's own
tools read it too. Everything that GrowthBook would silently repair (weights that do not add up become equal
ones) is refused here.
"""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from crops.arms import ARMS, CONTROL, TREATMENT
from crops.config.base import StageConfig
from crops.errors import ConfigError
from crops.release import document

FEATURE = "release"
# GrowthBook hashes namespaces by their own name, so ranges of one namespace cut the users the same way for
# all experiments.
NAMESPACE = "crops"
Json = dict[str, Any]


class Experiment(StageConfig):
    """Two releases against each other: who is in it, from when on, and which release each arm gets.

    Coverage c puts c * weight of all users into each arm: with equal weights c/2 each. Arms are ranges of a
    hash of salt and user that only grow with the coverage, so widening moves nobody.
    """

    name: str = Field(min_length=1, description="What readout, metrics and audit trail call it.")
    salt: str = Field(
        min_length=1,
        description="What users are hashed with; one per experiment, never changed while it runs.",
    )
    coverage: float = Field(
        ge=0, le=1, description="Share of all users (of the namespace) that are in the experiment."
    )
    control: str = Field(min_length=1, description="Release of the control arm, as the manifest names it.")
    treatment: str = Field(
        min_length=1, description="Release of the treatment arm, as the manifest names it."
    )
    start: datetime = Field(description="From when on users are assigned; with time zone.")
    weights: tuple[float, float] = Field(
        (0.5, 0.5), description="Shares of control and treatment; they add up to 1."
    )
    namespace: tuple[float, float] = Field(
        (0.0, 1.0), description="Range of users that this experiment may take, within 0..1."
    )
    overrides: dict[str, str] = Field(
        {}, description="Testers: user_id to the arm they see. Never counted as exposed."
    )

    @field_validator("start")
    @classmethod
    def _zoned(cls, start: datetime) -> datetime:
        if start.tzinfo is None:
            raise ValueError("no time zone; write it as 2026-01-01T00:00:00Z")
        return start.astimezone(UTC)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(
                f"weights of {self.name} are {list(self.weights)}, expected two positive shares that "
                "add up to 1"
            )
        if self.control == self.treatment:
            raise ValueError(f"{self.name} has the release {self.control} in both arms")
        if not 0 <= self.namespace[0] < self.namespace[1] <= 1:
            raise ValueError(
                f"namespace of {self.name} is {list(self.namespace)}, expected 0 <= from < to <= 1"
            )
        if unknown := {user: arm for user, arm in self.overrides.items() if arm not in ARMS}:
            raise ValueError(
                f"overrides of {self.name} name unknown arms: {unknown}; arms: {', '.join(ARMS)}"
            )
        return self

    @property
    def releases(self) -> dict[str, str]:
        """Arm to release."""
        return {CONTROL: self.control, TREATMENT: self.treatment}


def check(
    experiments: list[Experiment], *, releases: set[str] | None = None, source: str = "experiments"
) -> list[Experiment]:
    """`experiments`, if they can run side by side; a ConfigError that names the two that cannot, or the
    unknown release.

    `releases`: what can be served; None leaves that open.
    """
    for one, other in itertools.combinations(experiments, 2):
        if one.name == other.name:
            raise ConfigError(f"{source}: two experiments are called {one.name!r}")
        both = f"{source}: {one.name} {list(one.namespace)} and {other.name} {list(other.namespace)}"
        if one.salt == other.salt:
            raise ConfigError(f"{both} share the salt {one.salt!r}: their arms would be the same")
        if max(one.namespace[0], other.namespace[0]) < min(one.namespace[1], other.namespace[1]):
            raise ConfigError(f"{both} overlap: a user would be in both; give them namespaces that do not")
    for one in experiments:
        for arm, release in one.releases.items():
            if releases is not None and release not in releases:
                names = ", ".join(sorted(releases)) or "none"
                raise ConfigError(
                    f"{source}: {one.name}: unknown release {release!r} for {arm}; known: {names}"
                )
    return experiments


def check_change(before: Experiment, after: Experiment) -> Experiment:
    """`after`, if it moves no user of the running experiment `before` from one arm to the other; a
    ConfigError otherwise.
    """
    for key in ("name", "salt", *ARMS, "weights", "namespace", "start"):
        old, new = getattr(before, key), getattr(after, key)
        if old != new:
            raise ConfigError(
                f"{before.name}: {key} is {new!r} and was {old!r}: fixed while the experiment runs"
            )
    if after.coverage < before.coverage:
        raise ConfigError(
            f"{before.name}: coverage {after.coverage} is less than {before.coverage}: it may only "
            "widen; abort instead"
        )
    return after


def check_changes(before: list[Experiment], after: list[Experiment]) -> None:
    """A ConfigError where an experiment that runs in both is another one in `after` (check_change).

    Of the same name, but begun later with a salt of its own, it is another trial: the first one ended between
    two looks.
    """
    running = {one.name: one for one in before}
    for one in after:
        old = running.get(one.name)
        if old is not None and not (one.salt != old.salt and one.start > old.start):
            check_change(old, one)


def render(experiments: list[Experiment], *, releases: set[str] | None = None) -> Json:
    """The GrowthBook payload of experiments that can run side by side."""
    rules = [rule for one in check(experiments, releases=releases) for rule in (*_forced(one), _rule(one))]
    return {"features": {FEATURE: {"defaultValue": None, "rules": rules}}}


def _value(one: Experiment, arm: str) -> Json:
    return {"experiment": one.name, "arm": arm, "release": one.releases[arm]}


def _forced(one: Experiment) -> list[Json]:
    return [
        {
            "id": f"{one.name}:testers:{arm}",
            "condition": {"id": {"$in": users}},
            "force": _value(one, arm) | {"tester": True},
        }
        for arm in ARMS
        if (users := sorted(user for user, forced in one.overrides.items() if forced == arm))
    ]


def _rule(one: Experiment) -> Json:
    rule = {
        "id": one.name,
        "key": one.name,
        "seed": one.salt,
        "hashAttribute": "id",
        "hashVersion": 2,
        "coverage": one.coverage,
        "weights": list(one.weights),
        "meta": [{"key": arm} for arm in ARMS],
        "variations": [_value(one, arm) for arm in ARMS],
        "condition": {"now_s": {"$gte": one.start.timestamp()}},
    }
    return rule if one.namespace == (0.0, 1.0) else rule | {"namespace": [NAMESPACE, *one.namespace]}


def parse(payload: Json, *, releases: set[str] | None = None, source: str = "features") -> list[Experiment]:
    """The experiments of a features file, checked; a ConfigError that names what GrowthBook would have let
    pass.
    """
    try:
        feature = payload["features"][FEATURE]
        testers = [rule for rule in feature["rules"] if "force" in rule]
        running = [_read(rule, testers, source) for rule in feature["rules"] if "force" not in rule]
        if feature.get("defaultValue") is not None:
            raise ConfigError(f"{source}: {FEATURE} has a default value: everybody would be in an experiment")
        _check_testers(running, testers, source)
        return check(running, releases=releases, source=source)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{source}: expected a GrowthBook payload with the feature {FEATURE!r} and our rules ({error!r})"
        ) from error


def _read(rule: Json, testers: list[Json], source: str) -> Experiment:
    name, arms = rule["key"], [meta["key"] for meta in rule["meta"]]
    this = f"{source}: experiment {name!r}"
    if CONTROL not in arms:
        raise ConfigError(f"{this} has no control (arms: {', '.join(arms) or 'none'})")
    if arms != list(ARMS):
        raise ConfigError(f"{this} has the arms {arms}, expected {list(ARMS)}")
    if rule.get("hashVersion") != 2 or rule.get("hashAttribute") != "id":
        raise ConfigError(f"{this}: expected hashVersion 2 of the attribute id")
    fields = {
        "name": name,
        "salt": rule["seed"],
        "coverage": rule["coverage"],
        "weights": tuple(rule["weights"]),
        **{value["arm"]: value["release"] for value in rule["variations"]},
        "start": datetime.fromtimestamp(rule["condition"]["now_s"]["$gte"], UTC),
        "namespace": tuple(rule.get("namespace", (NAMESPACE, 0.0, 1.0))[1:]),
        "overrides": {
            user: tester["force"]["arm"]
            for tester in testers
            if tester["force"]["experiment"] == name
            for user in tester["condition"]["id"]["$in"]
        },
    }
    read = Experiment.parse(fields, source=source)
    # GrowthBook goes by the rule as it stands: what was not read here (ranges, filters, another order of the
    # variations) would move users unseen.
    ours = _rule(read)
    for key in sorted((rule.keys() | ours.keys()) - {"id"}):
        if rule.get(key) != ours.get(key):
            raise ConfigError(f"{this}: {key} is {rule.get(key)!r}, expected {ours.get(key)!r}")
    return read


def _check_testers(running: list[Experiment], testers: list[Json], source: str) -> None:
    """A ConfigError unless each forced arm is of users by name, who are nobody's data."""
    by_name = {one.name: one for one in running}
    for rule in testers:
        users, force = rule["condition"]["id"]["$in"], rule["force"]
        ours = {
            "condition": {"id": {"$in": users}},
            "force": _value(by_name[force["experiment"]], force["arm"]) | {"tester": True},
        }
        if {key: value for key, value in rule.items() if key != "id"} != ours:
            raise ConfigError(f"{source}: a forced arm of {force['experiment']} is {rule}, expected {ours}")


def load(source: str | Path, *, releases: set[str] | None = None) -> Json:
    """The payload of the file at a path or an s3:// URL, after it was checked (see payload)."""
    return payload(document.read(str(source)).content, releases=releases, source=str(source))


def payload(content: bytes | None, *, releases: set[str] | None = None, source: str = "features") -> Json:
    """What a features file holds, after it was checked; None, a file that is absent, is no experiment."""
    if content is None:
        return render([])
    try:
        listed: Json = json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}:{error.lineno}: not JSON: {error.msg}") from error
    parse(listed, releases=releases, source=source)
    return listed
