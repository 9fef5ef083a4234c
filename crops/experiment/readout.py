"""Moments to the readout: comparisons per metric, day and segment, what the whole says, and in plain
words.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from crops.experiment import power, sequential, stats
from crops.experiment.metrics import METRICS
from crops.experiment.moments import Arms

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How an experiment is read; fixed before it starts."""

    primary: str = "ctr"
    share: float = 0.5
    alpha: float = 0.05
    power: float = 0.8
    planned_users: int = sequential.PLANNED_USERS
    planned_lift: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Arms by metric: of the whole period, up to each day (YYYY-MM-DD, in order), and per segment."""

    whole: Mapping[str, Arms]
    by_day: Mapping[str, Mapping[str, Arms]] = field(default_factory=dict)
    segments: Mapping[str, Mapping[str, Arms]] = field(default_factory=dict)


def read(measured: Measured, reading: Reading) -> Json:
    """All numbers of the readout, its verdict (as in stats.Comparison) and the reasons in words."""
    metrics = {name: _metric(name, measured, reading) for name in METRICS}
    known = {name: m["p_always"] for name, m in metrics.items() if m["p_always"] is not None}
    stands = stats.discoveries(known, rate=reading.alpha)
    for name, metric in metrics.items():
        metric["stands"] = stands.get(name)
    arms = measured.whole[reading.primary]
    verdict, reasons = overall(
        {name: m["verdict"] for name, m in metrics.items()}, metrics, primary=reading.primary
    )
    return {
        "verdict": verdict,
        "reasons": reasons,
        "primary": reading.primary,
        "metrics": metrics,
        "users": {name: arm.users for name, arm in arms.both.items()} | {"in_both": arms.in_both},
        "srm": {
            "p": stats.srm(arms, share=reading.share) if arms.users else None,
            "share": reading.share,
            "limit": stats.SRM_ALPHA,
        },
        "reading": asdict(reading),
    }


def overall(
    verdicts: Mapping[str, str], metrics: Mapping[str, Json], *, primary: str
) -> tuple[str, list[str]]:
    """One verdict from three: the primary metric's, unless a guardrail got worse. The reasons say all
    three.
    """
    reasons = [
        f"{name.upper()}: {metrics[name]['verdict']}. {_sentence(metrics[name]['reason'])}."
        for name in metrics
    ]
    if stats.BLOCKED in verdicts.values():
        return stats.BLOCKED, reasons
    broken = [name for name, verdict in verdicts.items() if verdict == stats.WORSE and name != primary]
    if broken and verdicts[primary] != stats.WORSE:
        said = " and ".join(name.upper() for name in broken)
        return stats.WORSE, [f"Guardrail {said} got worse, whatever {primary.upper()} says.", *reasons]
    return verdicts[primary], reasons


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _metric(name: str, measured: Measured, reading: Reading) -> Json:
    metric, arms = METRICS[name], measured.whole[name]
    how: Json = {"alpha": reading.alpha, "planned_users": reading.planned_users}
    found = stats.estimate(arms, **how)
    return {
        **asdict(stats.decide(arms, metric, share=reading.share, **how)),
        "means": metric.means,
        "higher_is_better": metric.higher_is_better,
        "paper_lift": metric.paper_lift,
        "fixed_low": found.fixed_low if found else None,
        "fixed_high": found.fixed_high if found else None,
        "p_always": found.p_always if found else None,
        "by_day": [{"date": day, **_point(by[name], reading)} for day, by in measured.by_day.items()],
        "segments": {
            segment: asdict(stats.decide(by[name], metric, share=reading.share, **how))
            for segment, by in measured.segments.items()
        },
        "planning": _planning(arms, len(measured.by_day), reading),
    }


def _point(arms: Arms, reading: Reading) -> Json:
    found = stats.estimate(arms, alpha=reading.alpha, planned_users=reading.planned_users)
    keys = ("lift", "low", "high", "fixed_low", "fixed_high")
    return {"users": arms.users} | {key: getattr(found, key) if found else None for key in keys}


def _planning(arms: Arms, days: int, reading: Reading) -> Json | None:
    """What could have been seen with these users, and what the planned effect needs; None where the spread is
    unknown.
    """
    sd = power.spread(arms)
    if not sd:
        return None
    how = {"share": reading.share, "alpha": reading.alpha, "power": reading.power}
    seen = power.detectable(arms.users, sd, **how, planned_users=reading.planned_users)
    needed = power.needed_users(reading.planned_lift, sd, **how)
    needs = power.needed_days(needed, new_users_per_day=arms.users / max(days, 1))
    return {
        "spread": sd,
        "detectable": asdict(seen),
        "needed_users": asdict(needed),
        "needed_days": asdict(needs),
    }


def ratios(paths: list[Json]) -> Json:
    """Ratio_rank and Ratio_show: share of ranked and of shown items that a recall path brought, by arm and
    path.

    paths  rows arm, path (None: all items with known paths), ranked, shown. An item that two paths brought
           counts for both.
    """
    totals = {row["arm"]: row for row in paths if row["path"] is None}
    found: Json = {arm: {} for arm in sorted(totals)}
    for row in sorted((r for r in paths if r["path"] is not None), key=lambda r: str(r["path"])):
        total = totals[row["arm"]]
        found[row["arm"]][row["path"]] = {
            "ratio_rank": row["ranked"] / total["ranked"] if total["ranked"] else None,
            "ratio_show": row["shown"] / total["shown"] if total["shown"] else None,
            "ranked": row["ranked"],
            "shown": row["shown"],
        }
    return found
