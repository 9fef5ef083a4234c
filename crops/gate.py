"""Numbers to a verdict: does the challenger go on trial? A decision with reasons; another module acts on
it.
"""

from dataclasses import dataclass, replace

Z, Z_POWER = 1.959964, 0.841621  # of a 95 % interval; of a power of 80 %
PROMOTE, REJECT, UNKNOWN = "promote", "reject", "unknown"


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus champion on one set: mean difference of recall with its paired interval.

    chains  as many as the queries, less those that say the same thing as another; None: no two do
    """

    set: str
    difference: float
    low: float
    high: float
    queries: int
    chains: int | None = None

    @property
    def independent(self) -> int:
        """How many queries say something of their own."""
        return self.queries if self.chains is None else self.chains

    @property
    def size(self) -> str:
        """For a reason: of how many queries it is."""
        chains = f" in {self.chains} chains" if self.independent < self.queries else ""
        return f"{self.queries} queries{chains}"


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the numbers. `passed` None: it could not be answered."""

    name: str
    passed: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """promote, reject or unknown, why, and every check that was made."""

    verdict: str
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


def gain(
    gap: Difference | None, name: str, *, min_queries: int, of: str = "recall@100", than: str | None = None
) -> Check:
    """The challenger is better beyond the interval: passed; worse beyond it or level: not; too few queries:
    unanswered. `than`: what it is compared with, where that is not the champion.
    """
    check, where = f"better on {name}", name
    if than is not None:
        check, where = f"{check} than {than}", f"{where} against {than}"
    if gap is None or gap.independent < min_queries:
        return _unanswered(check, gap, where, min_queries)
    interval = f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] on {gap.size}"
    return Check(check, gap.low > 0, f"{of} on {where}: {interval}")


def no_loss(
    gap: Difference | None, name: str, *, max_loss: float, min_queries: int, non_inferior: bool = False
) -> Check:
    """A guardrail: not worse than by `max_loss` beyond the interval, with the loss that would have been seen.

    non_inferior: the loss is shown to be at most `max_loss`: the low end decides, not the high one.
    """
    if gap is None or gap.independent < min_queries:
        return _unanswered(f"no loss on {name}", gap, name, min_queries)
    interval = f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], allowed {-max_loss:+.4f}"
    seen = f"would have seen a loss of {100 * visible_loss(gap, max_loss=max_loss):.1f} points"
    passed = (gap.low if non_inferior else gap.high) >= -max_loss
    return Check(f"no loss on {name}", passed, f"recall@100 on {name}: {interval}; {seen}")


def visible_loss(gap: Difference, *, max_loss: float) -> float:
    """The true loss, as a share, that would have broken the guardrail four times in five.

    The high end falls below -max_loss with that chance where the loss is max_loss + (1.96 + 0.84) standard
    errors. Where no query differs the interval says nothing: up to 3 / n of the chains may (rule of three).
    """
    error = (gap.high - gap.low) / (2 * Z)
    return max_loss + max((Z + Z_POWER) * error, 3 / gap.independent)


def widened(gap: Difference | None, *, spread: float) -> Difference | None:
    """`gap` with the chance of training in its interval. spread: standard deviation of the difference between
    two trainings of one system.
    """
    if gap is None or spread == 0:
        return gap
    below, above = (
        (end**2 + (Z * spread) ** 2) ** 0.5 for end in (gap.difference - gap.low, gap.high - gap.difference)
    )
    return replace(gap, low=gap.difference - below, high=gap.difference + above)


def _unanswered(check: str, gap: Difference | None, name: str, min_queries: int) -> Check:
    size = "0 queries" if gap is None else gap.size
    return Check(check, None, f"{name}: {size}, {min_queries} are needed to tell")


def bound(name: str, value: float | None, *, least: float | None = None, most: float | None = None) -> Check:
    """An absolute floor or ceiling; no value is no answer."""
    if value is None:
        return Check(name, None, f"{name}: not measured")
    passed = (least is None or value >= least) and (most is None or value <= most)
    limit = f"at least {least}" if least is not None else f"at most {most}"
    return Check(name, passed, f"{name}: {value:.4g}, {limit}")


def decide(required: list[Check], guards: list[Check]) -> Verdict:
    """All required and no guard broken: promote. Anything that failed: reject. Else what is unanswered:
    unknown.

    A guard that could not be answered does not stop a promotion, but it is among the reasons.
    """
    failed = [c for c in [*required, *guards] if c.passed is False]
    open_ = [c for c in required if c.passed is None]
    checks = (*required, *guards)
    if failed:
        return Verdict(REJECT, tuple(c.reason for c in failed), checks)
    if open_:
        return Verdict(UNKNOWN, tuple(c.reason for c in open_), checks)
    unanswered = tuple(f"not answered: {c.reason}" for c in guards if c.passed is None)
    return Verdict(PROMOTE, tuple(c.reason for c in required) + unanswered, checks)
