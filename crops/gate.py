"""Numbers to a verdict: does the challenger go on trial? A decision with reasons; another module acts on
it.
"""

from dataclasses import dataclass

PROMOTE, REJECT, UNKNOWN = "promote", "reject", "unknown"


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus champion on one set: mean difference of recall with its paired interval."""

    set: str
    difference: float
    low: float
    high: float
    queries: int


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
    if gap is None or gap.queries < min_queries:
        return _unanswered(check, gap, where, min_queries)
    interval = f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] on {gap.queries} queries"
    return Check(check, gap.low > 0, f"{of} on {where}: {interval}")


def no_loss(gap: Difference | None, name: str, *, max_loss: float, min_queries: int) -> Check:
    """A guardrail: not worse than by `max_loss` beyond the interval."""
    if gap is None or gap.queries < min_queries:
        return _unanswered(f"no loss on {name}", gap, name, min_queries)
    interval = f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], allowed {-max_loss:+.4f}"
    return Check(f"no loss on {name}", gap.high >= -max_loss, f"recall@100 on {name}: {interval}")


def _unanswered(check: str, gap: Difference | None, name: str, min_queries: int) -> Check:
    count = 0 if gap is None else gap.queries
    return Check(check, None, f"{name}: {count} queries, {min_queries} are needed to tell")


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
