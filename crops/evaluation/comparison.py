"""Rows of an ablation over several seeds: recall with intervals, paired differences, and whether a claim of
the paper shows.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from crops import spread
from crops.evaluation.claims import CHOSEN, FIXED, WITHOUT, Claim, tables
from crops.evaluation.sets import COLD_START
from crops.evaluation.sets import SETS as ALL
from crops.evaluation.trial import chained

SETS = (*(name for name in ALL if name != "qr"), COLD_START)  # qr is gated by θ, which gated training as well
METRICS = ("recall_at_100", "recall_at_20", "ndcg_at_4")
WITHIN = 0.005  # half a point: how near the chosen hierarchy must come to the best fixed one


def compared(seeds: Sequence[pd.DataFrame], names: Sequence[str]) -> dict[str, Any]:
    """`seeds`: one per_query table (set, system, query, recall_at_20, recall_at_100, ndcg_at_4) per training
    seed; `names`: of claims.tables().

    Returns {"values": {set: {row: {metric: mean, "low", "high"}}}, "claims": {table: [...]}, "hierarchy",
    "findings"}.
    """
    every = tables()
    per = pd.concat([rows.assign(seed=n) for n, rows in enumerate(seeds)], ignore_index=True)
    values = {name: _values(per[per["set"] == name]) for name in SETS if (per["set"] == name).any()}
    claims = {
        name: [entry for claim in every[name].claims if (entry := _claim(per, claim)) is not None]
        for name in names
    }
    choice = _choice(values)
    findings = [f["verdict"] for table in claims.values() for f in table if f["paper_ct"] is not None]
    if choice is not None:
        findings.append(choice["verdict"])
    return {"values": values, "claims": claims, "hierarchy": choice, "findings": findings}


def priced(rows: dict[str, dict[str, Any]], values: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Adds to each of `rows` (with tokens) `tokens_a_point`, of recall@100 above the row without knowledge on
    the best set that there is; None where that row is missing or nothing is gained. values: of `compared`.
    """
    best = next((values[name] for name in ("truth", "qr_relevant", "qr_raw") if name in values), {})
    without = best.get(WITHOUT)
    for name, row in rows.items():
        gain = 100 * (best[name]["recall_at_100"] - without["recall_at_100"]) if without else 0.0
        row["tokens_a_point"] = round(row["tokens"] / gain) if gain > 0 else None


def difference(
    per: pd.DataFrame, row: str, against: str, metric: str = "recall_at_100"
) -> dict[str, float] | None:
    """Paired mean of row - against with its 95 % interval over queries and seeds (crops.spread); None where
    fewer than two queries, or chains of them, were measured: one says nothing of how much queries differ.
    """
    grid = per.pivot_table(index="query", columns=["system", "seed"], values=metric)
    if row not in grid.columns or against not in grid.columns:
        return None
    rows = (grid[row] - grid[against]).dropna()
    gaps = rows.to_numpy().T  # [seeds, Q]
    half = spread.half_width(gaps, _together(per, rows.index))
    if half is None:
        return None
    mean = float(gaps.mean())
    return {
        "difference": round(mean, 4),
        "low": round(mean - half, 4),
        "high": round(mean + half, 4),
        "queries": len(rows),
    }


def _together(per: pd.DataFrame, queries: pd.Index) -> np.ndarray:
    """int64 [Q]: the number of each query's chain; tables without chains have none."""
    of = per.dropna(subset="chain") if "chain" in per else per.head(0).assign(chain=0)
    return chained(queries, {q: int(chain) for q, chain in zip(of["query"], of["chain"], strict=True)})


def _values(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    values = {}
    for system, own in rows.groupby("system", sort=False):
        by_seed = own.groupby("seed")[list(METRICS)].mean()
        means = {m: None if np.isnan(x := by_seed[m].mean()) else round(float(x), 4) for m in METRICS}
        values[str(system)] = {**means, "seeds": [round(float(x), 4) for x in by_seed["recall_at_100"]]}
    return values


def _claim(per: pd.DataFrame, claim: Claim) -> dict[str, Any] | None:
    gaps = {name: difference(per[per["set"] == name], claim.row, claim.against) for name in SETS}
    sets = {name: gap for name, gap in gaps.items() if gap is not None}
    if not sets:
        return None
    quality = next((name for name in ("qr_relevant", "qr_raw") if name in sets), None)
    shows = {
        "ct": _against_paper(sets.get("ct"), claim.paper_ct),
        "qr": _against_paper(sets.get(quality or ""), claim.paper_qr),
    }
    if "truth" in sets:
        shows["truth"] = _against_paper(sets["truth"], claim.paper_qr)
    shown = [f"{name} {_points(sets[name])}" for name in ("ct", quality, "truth") if name in sets]
    verdict = f"{claim.says}: {', '.join(shown)}"
    if claim.paper_ct is not None:
        here = ", ".join(f"{verdict} on {name}" for name, verdict in shows.items())
        verdict += f". The paper: CT {claim.paper_ct:+.1f}, QR {claim.paper_qr:+.1f}. Here: {here}."
    return {**asdict(claim), "sets": sets, "shows": shows, "verdict": verdict}


def _against_paper(gap: dict[str, float] | None, paper: float | None) -> str:
    if gap is None or paper is None:
        return "not measured"
    if gap["low"] <= 0 <= gap["high"]:
        return "not seen"
    return "appears" if (gap["difference"] > 0) == (paper > 0) else "the other way round"


def _points(gap: dict[str, float]) -> str:
    return f"{100 * gap['difference']:+.1f} [{100 * gap['low']:.1f}, {100 * gap['high']:.1f}]"


def _choice(values: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """The hierarchy that chose itself against the best fixed one, on truth and on reformulations judged by
    truth.
    """
    sets = [name for name in ("truth", "qr_relevant") if CHOSEN in values.get(name, {})]
    if not sets or any(name not in values[sets[0]] for name in FIXED):
        return None
    gaps = {}
    for name in sets:
        best = max(FIXED, key=lambda row: values[name][row]["recall_at_100"])
        gaps[name] = {
            "best": best,
            "gap": round(values[name][CHOSEN]["recall_at_100"] - values[name][best]["recall_at_100"], 4),
        }
    within = all(entry["gap"] >= -WITHIN for entry in gaps.values())
    gains = ", ".join(
        f"{name} {100 * entry['gap']:+.1f} against {entry['best']}" for name, entry in gaps.items()
    )
    near = "" if within else "not "
    verdict = f"the chosen hierarchy is {near}within half a point of the best fixed one: {gains}"
    return {"sets": gaps, "within_half_a_point": within, "verdict": verdict}
