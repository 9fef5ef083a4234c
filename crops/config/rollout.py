"""Settings of `crops rollout`: canary steps, guardrails, then the A/B."""

import itertools
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from crops.config.base import StageConfig
from crops.config.experiment import LARGEST_ALPHA

# $in stands for the label matcher of one side (an arm here, a pod hash in Argo Rollouts), $window for the
# range, $quantile for a quantile that leaves room for chance (experiment.rollout.quantile).
ARM = "arm"


class Step(StageConfig):
    """One step of the canary: who is in it and what must have been seen before it ends."""

    coverage: float = Field(gt=0, le=1)
    """Share of all users in the experiment: half of them get the challenger."""
    dwell_s: float = Field(ge=0)
    """Least time in this step, seconds."""
    min_users: int = Field(ge=0)
    """Least users of both arms since the start, as gateways (within some 9 %) or the readout count them."""


class Guardrail(StageConfig):
    """One question to Prometheus, asked of both sides, and how much worse the challenger may be."""

    name: str = Field(min_length=1)
    """What the audit trail calls it."""
    kind: Literal["difference", "ratio", "rate", "count"]
    """difference: treatment - control <= limit. ratio: treatment / control <= limit. rate: a share whose
    relative change is worse than limit beyond chance. count: treatment alone <= limit.
    """
    query: str = Field(min_length=1)
    """PromQL for one side, with $in, $window, perhaps $quantile. Of a rate: the numerator's increase."""
    events: str = Field(min_length=1)
    """PromQL: how many events stand behind it. Of a rate: the denominator's increase."""
    min_events: float = Field(ge=0)
    """Fewer on either side give no answer."""
    limit: float
    """Most that is tolerated; see kind."""
    quantile: float | None = Field(None, gt=0, lt=1)
    """Which quantile `query` compares, if it says $quantile: few events leave it uncertain."""
    higher_is_better: bool = False
    """Of a rate: whether more is better."""

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if (self.quantile is None) == ("$quantile" in self.query):
            raise ValueError(f"guardrail {self.name}: quantile and $quantile in the query go together")
        return self


class AB(StageConfig):
    """The fixed A/B after the canary: coverage and split stay until it is decided."""

    coverage: float = Field(1.0, gt=0, le=1)
    """Share of all users in the A/B. Source: ours: as many as there are."""
    min_s: float = Field(604_800.0, ge=0)
    """Least duration, seconds: a week, for its weekdays. Source: convention."""
    max_s: float = Field(2_419_200.0, gt=0)
    """After so many seconds without a better verdict it ends with a rollback. Source: ours: four weeks."""
    min_users: int = Field(5000, ge=0)
    """Least users of both arms; as experiment.planned_users. Source: ours."""
    primary: Literal["ctr", "lpr", "rqr"] = "ctr"
    """Metric that decides. Source: ours."""


def _searches(extra: str = "") -> str:
    return f"sum(increase(crops_search_requests_total{{$in{extra}}}[$window]))"


def _total(name: str) -> str:
    return f"sum(increase({name}{{$in}}[$window]))"


def _rate(name: str, of: str, events: str, min_events: int, higher_is_better: bool = False) -> Guardrail:
    return Guardrail(
        name=name,
        kind="rate",
        limit=0.02,
        min_events=min_events,
        higher_is_better=higher_is_better,
        query=_total(of),
        events=_total(events),
    )


ANSWERED = ',outcome=~"ok|empty"'
GUARDRAILS = (
    Guardrail(
        name="errors",
        kind="difference",
        limit=0.005,
        min_events=200,
        events=_searches(),
        query='sum(increase(crops_search_requests_total{$in,outcome!~"ok|empty"}[$window])) or vector(0)',
    ),
    Guardrail(
        name="p99",
        kind="ratio",
        limit=1.25,
        min_events=200,
        events=_searches(),
        quantile=0.99,
        query="histogram_quantile($quantile, sum by (le) "
        '(rate(crops_search_seconds_bucket{$in,phase="total"}[$window])))',
    ),
    Guardrail(
        name="empty results",
        kind="difference",
        limit=0.01,
        min_events=200,
        events=_searches(ANSWERED),
        query='sum(increase(crops_search_requests_total{$in,outcome="empty"}[$window])) or vector(0)',
    ),
    _rate("ctr", "crops_clicks_total", "crops_impressions_total", 2000, higher_is_better=True),
    _rate("lpr", "crops_long_plays_total", "crops_impressions_total", 2000, higher_is_better=True),
    _rate("rqr", "crops_reformulations_total", "crops_searches_total", 500),
)


class RolloutConfig(StageConfig):
    """How a challenger goes to users: canary steps under guardrails, then the fixed A/B."""

    renamed: ClassVar = {"window_s": "look_back_s"}

    steps: tuple[Step, ...] = Field(
        (
            Step(coverage=0.01, dwell_s=3600, min_users=100),
            Step(coverage=0.05, dwell_s=14_400, min_users=500),
            Step(coverage=0.25, dwell_s=86_400, min_users=2000),
            Step(coverage=0.5, dwell_s=86_400, min_users=4000),
        ),
        min_length=1,
    )
    """Canary steps; coverage only grows. Source: coverage 1-5-25-50 % is a common canary; dwell and users:
    ours.
    """
    guardrails: tuple[Guardrail, ...] = Field(GUARDRAILS, min_length=1)
    """Checked at every look, in canary and A/B. Source: ours, each limit."""
    matchers: str = Field("")
    """Label matchers of every question to Prometheus beside the arm's, where it holds several installations,
    e.g. namespace="search". Source: the cluster.
    """
    ab: AB = Field(default_factory=lambda: AB.model_validate({}))
    """The A/B after the last step. Source: ours."""
    look_back_s: float = Field(1800.0, gt=0)
    """How far back Prometheus is asked, not before the step began. Source: ours: 30 min hold 200 searches of
    1 %.
    """
    overdispersion: float = Field(2.2, ge=1)
    """Standard errors of a rate per event are so many times too small, as events of one user belong together.
    Source: ours: measured, a z-test on impressions was wrong 36 % of the time at a nominal 5 %.
    """
    alpha: float = Field(0.05, gt=0, le=LARGEST_ALPHA)
    """Level at which a rate's loss is beyond chance, always-valid. Source: convention."""
    blind_limit_s: float = Field(900.0, gt=0)
    """Prometheus silent for so long ends in a rollback. Source: ours: 15 min."""
    max_skew_s: float = Field(30.0, gt=0)
    """Clocks of Prometheus and controller further apart than this: it waits. Source: ours."""
    poll_s: float = Field(30.0, gt=0)
    """Seconds between two looks of `crops rollout start --follow`. Source: ours."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        shares = [step.coverage for step in self.steps] + [self.ab.coverage]
        if any(after < before for before, after in itertools.pairwise(shares)):
            raise ValueError(
                f"coverages are {shares}, expected each at least the one before: widening moves "
                "nobody, narrowing does"
            )
        names = [g.name for g in self.guardrails]
        if len(set(names)) < len(names):
            raise ValueError(f"guardrails {names} share a name")
        if self.ab.max_s < self.ab.min_s:
            raise ValueError(f"ab.max_s is {self.ab.max_s}, expected at least ab.min_s = {self.ab.min_s}")
        return self
