"""What a rollout does next: plan, state and measurements in, a verdict with its reason out.
crops.stages.trial.rollout acts on it.

canary step 0 .. n -> A/B -> promoted          wait: nothing; advance: the next step, or the A/B
          any of them -> rolled back           promote: the challenger becomes champion; roll back: it leaves
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, get_args

from crops.arms import CONTROL, TREATMENT
from crops.config.rollout import Guardrail, RolloutConfig, Step
from crops.errors import ConfigError
from crops.experiment import sequential

WAIT, ADVANCE, ROLL_BACK, PROMOTE = "wait", "advance", "roll back", "promote"
Phase = Literal["canary", "ab", "promoted", "rolled back", "aborted"]
RUNNING: tuple[Phase, ...] = ("canary", "ab")
# Prometheus is asked about at least so long: two scrapes. Until a rollout is as old, answers may be of the
# one before, whose arms have the same names.
LEAST_S = 60.0
LAST_S = datetime.max.replace(tzinfo=UTC).timestamp()
Sides = Mapping[str, float | None]  # by arm


# Files of a rollout's folder: its state, every move with its reason, the last look, and a request to end it.
STATE, AUDIT, LOOK, ABORT = "rollout.json", "audit.jsonl", "look.json", "abort.json"


@dataclass(frozen=True, slots=True)
class Verdict:
    """wait | advance | roll back | promote, and why."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where the rollout of `experiment` stands; times are Unix seconds."""

    experiment: str
    control: str
    treatment: str
    started_s: float
    entered_s: float  # this step, or the A/B
    phase: Phase = "canary"
    step: int = 0
    blind_since_s: float | None = None  # first look that got no answer from Prometheus

    def __post_init__(self) -> None:
        """A ValueError where a file held something else."""
        times = (self.started_s, self.entered_s, 0 if self.blind_since_s is None else self.blind_since_s)
        if not all(isinstance(one, int | float) and 0 <= one < LAST_S for one in times):
            raise ValueError(f"times are {times}, expected Unix seconds")
        if self.phase not in get_args(Phase):
            raise ValueError(f"phase is {self.phase!r}, expected one of {', '.join(get_args(Phase))}")
        if not isinstance(self.step, int) or self.step < 0:
            raise ValueError(f"step is {self.step!r}, expected a whole number >= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """Of readout.json: verdict on the primary metric with the guardrails, why, and users of both arms."""

    verdict: str
    reason: str
    users: int
    primary: str = "ctr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What was seen at one look. None is "not known", never 0.

    at_s      Prometheus's own clock
    problem   why nothing was seen; the rest is empty then
    values    guardrail -> arm -> value; of a rate the numerator
    events    guardrail -> arm -> events behind it; of a rate the denominator
    served    arm -> releases that gateways report for it
    rejected  releases that gateways refused (fingerprint) since the start
    users     of both arms since the start: what gateways counted, or the readout where that is more
    """

    at_s: float | None = None
    problem: str | None = None
    values: Mapping[str, Sides] | None = None
    events: Mapping[str, Sides] | None = None
    served: Mapping[str, frozenset[str]] | None = None
    rejected: float | None = None
    users: int | None = None
    readout: Readout | None = None


def is_of(started_s: float, since: str) -> bool:
    """Whether a readout that begins at `since` (ISO 8601) is of the rollout that began then, not of the one
    before.
    """
    return datetime.fromisoformat(since).timestamp() >= started_s - 1  # it is written to the second


def coverage(plan: RolloutConfig, state: State) -> float:
    """Share of all users in the experiment; 0 once it is over."""
    if state.phase not in RUNNING:
        return 0.0
    return _step(plan, state).coverage if state.phase == "canary" else plan.ab.coverage


def _step(plan: RolloutConfig, state: State) -> Step:
    if state.step >= len(plan.steps):
        raise ConfigError(
            f"{state.experiment} stands at canary step {state.step + 1}, rollout.steps has "
            f"{len(plan.steps)}: a plan may not be cut short while it runs"
        )
    return plan.steps[state.step]


def quantile(plan: RolloutConfig, rail: Guardrail, arm: str, events: float) -> float:
    """Which quantile of an arm to ask for, so that chance alone breaks no rail: below its own in treatment,
    above it in control.

    The share of n events under their true quantile q has the standard error sqrt(q (1 - q) / n). Each side
    moves by the always-valid number of them, over the root of two because both move. 0 < result < 1.
    """
    q = rail.quantile or 0.5
    n = max(1.0, events)
    critical = sequential.critical(int(n), alpha=plan.alpha, planned_users=int(n))
    step = critical / math.sqrt(2) * math.sqrt(q * (1 - q) / n)
    return max(0.01, q - step) if arm == TREATMENT else min(0.9999, q + step)


def decide(plan: RolloutConfig, state: State, measured: Measurements, *, now_s: float) -> Verdict:
    """The next move. A guardrail beats everything; what is not known never advances."""
    if state.phase not in RUNNING:
        return Verdict(WAIT, f"{state.experiment} is over: {state.phase}")
    if (blind := _blind(plan, state, measured, now_s=now_s)) is not None:
        return blind
    if measured.readout is not None and measured.readout.verdict in ("worse", "blocked"):
        return Verdict(ROLL_BACK, f"readout: {measured.readout.verdict}: {measured.readout.reason}")
    if broken := _broken(plan, state, measured):
        if now_s - state.started_s < LEAST_S:
            return Verdict(WAIT, f"{'; '.join(broken)}: of before the start, unless it lasts {LEAST_S:.0f} s")
        return Verdict(ROLL_BACK, "; ".join(broken))
    if (reason := _not_yet(plan, state, measured, now_s=now_s)) is not None:
        return _too_long(plan, state, reason, now_s=now_s)
    if state.phase == "canary":
        last = state.step + 1 == len(plan.steps)
        following = (
            f"A/B at {plan.ab.coverage:.0%}"
            if last
            else f"step {state.step + 2} at {plan.steps[state.step + 1].coverage:.0%}"
        )
        return Verdict(ADVANCE, f"guardrails hold, dwell and users reached; next: {following}")
    return _too_long(plan, state, _ab(measured.readout, plan.ab.primary), now_s=now_s)


def after(state: State, verdict: Verdict, measured: Measurements, *, steps: int, now_s: float) -> State:
    """The state that `verdict` leads to, of a plan with `steps` canary steps."""
    if verdict.kind == WAIT:
        blind = (
            (state.blind_since_s if state.blind_since_s is not None else now_s) if measured.problem else None
        )
        return replace(state, blind_since_s=blind)
    if verdict.kind == ROLL_BACK:
        return replace(state, phase="rolled back", blind_since_s=None)
    if verdict.kind == PROMOTE:
        return replace(state, phase="promoted", blind_since_s=None)
    if state.step + 1 < steps:
        return replace(state, step=state.step + 1, entered_s=now_s, blind_since_s=None)
    return replace(state, phase="ab", entered_s=now_s, blind_since_s=None)


def _blind(plan: RolloutConfig, state: State, measured: Measurements, *, now_s: float) -> Verdict | None:
    """No measurements, or clocks that cannot both be right: wait and say so; roll back when it lasts."""
    if measured.problem is not None:
        since = state.blind_since_s if state.blind_since_s is not None else now_s
        left = plan.blind_limit_s - (now_s - since)
        if left <= 0:
            return Verdict(
                ROLL_BACK,
                f"no measurements for {now_s - since:.0f} s (limit {plan.blind_limit_s:.0f} s): "
                f"{measured.problem}",
            )
        return Verdict(WAIT, f"no measurements: {measured.problem}; waiting, rolled back in {left:.0f} s")
    if now_s < state.entered_s:
        return Verdict(
            WAIT, f"the clock says {state.entered_s - now_s:.0f} s before this step began: clock skew"
        )
    if measured.at_s is not None and abs(measured.at_s - now_s) > plan.max_skew_s:
        return Verdict(
            WAIT,
            f"Prometheus's clock and this one are {abs(measured.at_s - now_s):.0f} s apart (limit "
            f"{plan.max_skew_s:.0f} s)",
        )
    return None


def _broken(plan: RolloutConfig, state: State, measured: Measurements) -> list[str]:
    reasons = [reason for g in plan.guardrails if (reason := _check(plan, g, measured)[1]) is not None]
    if measured.rejected:
        reasons.append(f"fingerprint: {measured.rejected:.0f} release(s) refused by a gateway")
    wrong = (measured.served or {}).get(TREATMENT, frozenset()) - {state.treatment}
    if wrong:
        reasons.append(
            f"fingerprint: treatment is served by {', '.join(sorted(wrong))}, expected {state.treatment}"
        )
    return reasons


def _check(plan: RolloutConfig, g: Guardrail, measured: Measurements) -> tuple[bool, str | None]:
    """(answered, reason why it is broken or None)."""
    values, events = (measured.values or {}).get(g.name, {}), (measured.events or {}).get(g.name, {})
    treatment, control = values.get(TREATMENT), values.get(CONTROL)
    n, m = events.get(TREATMENT) or 0.0, events.get(CONTROL) or 0.0
    if treatment is None or n < g.min_events:
        return False, None
    if g.kind == "count":
        return True, _over(g, treatment, f"{g.name}: {treatment:.4g} in treatment")
    if control is None or m < g.min_events:
        return False, None
    if g.kind == "rate" and (treatment > n or control > m):
        return False, None  # more events than there can be: not known
    if g.kind == "rate":
        return True, _lost(plan, g, (control, m), (treatment, n))
    if g.kind == "difference":
        a, b = treatment / n, control / m
        return True, _over(g, a - b, f"{g.name}: {a:.2%} in treatment against {b:.2%}")
    if control <= 0:
        return False, None
    return True, _over(
        g, treatment / control, f"{g.name}: {treatment:.4g} in treatment against {control:.4g}"
    )


def _over(g: Guardrail, value: float, words: str) -> str | None:
    return f"{words}, allowed {g.kind} {g.limit:g}" if value > g.limit else None


def _lost(
    plan: RolloutConfig, g: Guardrail, control: tuple[float, float], treatment: tuple[float, float]
) -> str | None:
    """A rate that is worse by more than `limit` beyond the always-valid bound of its log ratio.

    The standard error is that of independent events at the pooled rate, times `overdispersion`, so that a
    side without any event can fail; the exact, per-user answer is the readout's.
    """
    (x, m), (y, n) = control, treatment
    # Half an event keeps the logarithm of a side without any.
    a, b = (x + 0.5) / (m + 1), (y + 0.5) / (n + 1)
    pooled = min((x + y + 1) / (m + n + 2), 1.0)
    se = plan.overdispersion * math.sqrt((1 - pooled) / pooled * (1 / m + 1 / n))
    worse = math.log(a / b) if g.higher_is_better else math.log(b / a)
    bound = worse - se * sequential.critical(
        max(1, int(n + m)), alpha=plan.alpha, planned_users=max(1, int(n + m))
    )
    if bound <= math.log1p(g.limit):
        return None
    return (
        f"{g.name}: {b:.2%} in treatment against {a:.2%}, worse by at least "
        f"{math.expm1(bound):.1%}, allowed {g.limit:.1%}"
    )


def _not_yet(plan: RolloutConfig, state: State, measured: Measurements, *, now_s: float) -> str | None:
    """What is still missing before this step can end; None: nothing."""
    dwell_s, users = plan.ab.min_s, plan.ab.min_users
    if state.phase == "canary":
        dwell_s, users = _step(plan, state).dwell_s, _step(plan, state).min_users
    if state.treatment not in (measured.served or {}).get(TREATMENT, frozenset()):
        return f"no gateway reports {state.treatment} for treatment yet"
    if now_s - state.entered_s < dwell_s:
        return f"{now_s - state.entered_s:.0f} of {dwell_s:.0f} s in this step"
    if measured.users is None:
        return "the number of users is not known: no gateway reports any, and there is no readout yet"
    if measured.users < users:
        return f"{measured.users} of {users} users seen"
    if silent := [g.name for g in plan.guardrails if not _check(plan, g, measured)[0]]:
        return f"too little traffic to judge {', '.join(silent)}, or a rate above 1"
    return None


def _ab(readout: Readout | None, primary: str) -> Verdict | str:
    if readout is None:
        return "no readout yet"
    if readout.primary != primary:
        return (
            f"the readout decides by {readout.primary}, the plan by {primary}: `crops experiment "
            f"--metric {primary}`"
        )
    if readout.verdict == "better":
        return Verdict(PROMOTE, f"readout: better: {readout.reason}")
    return f"readout: {readout.verdict}: {readout.reason}"


def _too_long(plan: RolloutConfig, state: State, outcome: Verdict | str, *, now_s: float) -> Verdict:
    """An A/B that ran its time without being better ends; a canary waits as long as it must."""
    if isinstance(outcome, Verdict):
        return outcome
    if state.phase == "ab" and now_s - state.entered_s >= plan.ab.max_s:
        return Verdict(ROLL_BACK, f"not better after {now_s - state.entered_s:.0f} s of A/B: {outcome}")
    return Verdict(WAIT, outcome)
