"""Moments to the readout: comparisons per metric, day and segment, what the whole says, and in plain
words.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
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
    p_values = {name: m["p_always"] for name, m in metrics.items() if m["p_always"] is not None}
    stands = stats.discoveries(p_values, rate=reading.alpha)
    for name, metric in metrics.items():
        metric["stands"] = stands.get(name)
    arms = measured.whole[reading.primary]
    verdict, reasons = _overall(metrics, reading.primary)
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


def _overall(metrics: Mapping[str, Json], primary: str) -> tuple[str, list[str]]:
    """One verdict from three: the primary metric's, unless a guardrail got worse. The reasons say all
    three.
    """
    reasons = [
        f"{name.upper()}: {metric['verdict']}. {metric['reason'][:1].upper()}{metric['reason'][1:]}."
        for name, metric in metrics.items()
    ]
    verdicts = {name: metric["verdict"] for name, metric in metrics.items()}
    if stats.BLOCKED in verdicts.values():
        return stats.BLOCKED, reasons
    broken = [name for name, verdict in verdicts.items() if verdict == stats.WORSE and name != primary]
    if broken and verdicts[primary] != stats.WORSE:
        names = " and ".join(name.upper() for name in broken)
        return stats.WORSE, [f"Guardrail {names} got worse, whatever {primary.upper()} says.", *reasons]
    return verdicts[primary], reasons


def _metric(name: str, measured: Measured, reading: Reading) -> Json:
    metric, arms = METRICS[name], measured.whole[name]
    decide = partial(
        stats.decide,
        metric=metric,
        share=reading.share,
        alpha=reading.alpha,
        planned_users=reading.planned_users,
    )
    return {
        **asdict(decide(arms)),
        **{key: getattr(metric, key) for key in ("means", "higher_is_better", "paper_lift")},
        **_estimated(arms, reading, "fixed_low", "fixed_high", "p_always"),
        "by_day": [
            {
                "date": day,
                "users": by[name].users,
                **_estimated(by[name], reading, "lift", "low", "high", "fixed_low", "fixed_high"),
            }
            for day, by in measured.by_day.items()
        ],
        "segments": {segment: asdict(decide(by[name])) for segment, by in measured.segments.items()},
        "planning": _planning(arms, len(measured.by_day), reading),
    }


def _estimated(arms: Arms, reading: Reading, *keys: str) -> Json:
    """These numbers of the estimate; None if there is none."""
    estimate = stats.estimate(arms, alpha=reading.alpha, planned_users=reading.planned_users)
    return {key: getattr(estimate, key, None) for key in keys}


def _planning(arms: Arms, days: int, reading: Reading) -> Json | None:
    """What could have been seen with these users, and what the planned effect needs; None where the spread is
    unknown.
    """
    sd = power.spread(arms)
    if not sd:
        return None
    levels = {"share": reading.share, "alpha": reading.alpha, "power": reading.power}
    users = power.needed_users(reading.planned_lift, sd, **levels)
    plans = {
        "detectable": power.detectable(arms.users, sd, **levels, planned_users=reading.planned_users),
        "needed_users": users,
        "needed_days": power.needed_days(users, new_users_per_day=arms.users / max(days, 1)),
    }
    return {"spread": sd, **{name: asdict(plan) for name, plan in plans.items()}}


def ratios(paths: list[Json]) -> Json:
    """Ratio_rank and Ratio_show: share of ranked and of shown items that a recall path brought, by arm and
    path.

    paths  rows arm, path (None: all items with known paths), ranked, shown. An item that two paths brought
           counts for both.
    """
    totals = {row["arm"]: row for row in paths if row["path"] is None}
    shares: Json = {arm: {} for arm in sorted(totals)}
    for row in sorted((r for r in paths if r["path"] is not None), key=lambda r: str(r["path"])):
        counts = {key: row[key] for key in ("ranked", "shown")}
        total = totals[row["arm"]]
        shares[row["arm"]][row["path"]] = counts | {
            ratio: row[key] / total[key] if total[key] else None
            for ratio, key in (("ratio_rank", "ranked"), ("ratio_show", "shown"))
        }
    return shares
