"""What a gate keeps and drops, as counts that add up over parts of the log."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crops.discriminator import chance

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
# A gate is silent where it keeps less than a tenth of at least 20 relevant pairs that θ itself expects.
SILENT_FROM, SILENT_SHARE = 20, 0.1


@dataclass(slots=True)
class Kept:
    """Pairs at one threshold: how many are kept and dropped; of those that there are grades of, how many
    there are, are relevant, are kept, are both; and the relevant ones that θ expects among all and among
    those kept.
    """

    counts: Counter[str] = field(default_factory=Counter)
    expected: float = 0.0
    expected_kept: float = 0.0

    def add(self, theta: np.ndarray, level: float, relevant: np.ndarray | None) -> None:
        """theta float [N]; relevant float [N], NaN where it is not known, or None where nothing is."""
        kept = theta > level
        self.counts.update(kept=int(kept.sum()), dropped=int((~kept).sum()))
        self.expected += float(theta.sum(dtype=np.float64))
        self.expected_kept += float(theta[kept].sum(dtype=np.float64))
        if relevant is not None:
            certain = ~np.isnan(relevant)
            good, share = relevant[certain] > 0, kept[certain]
            both = int((good & share).sum())
            self.counts.update(certain=len(good), good=int(good.sum()), chosen=int(share.sum()), both=both)

    def row(self) -> dict[str, float | int | None]:
        """Counts, and how right that is; null where no grade says so."""
        c = self.counts
        return {
            "kept": c["kept"],
            "dropped": c["dropped"],
            "precision": round(c["both"] / c["chosen"], 4) if c["chosen"] else None,
            "recall": round(c["both"] / c["good"], 4) if c["good"] else None,
            "raw": round(c["good"] / c["certain"], 4) if c["certain"] else None,
        }


class Tables:
    """Kept and dropped of one perspective, by threshold and by how many of the query's words the text has."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.thresholds = {level: Kept() for level in sorted({*THRESHOLDS, alpha})}
        self.bands = {band: Kept() for band in chance.BANDS}

    def add(self, theta: np.ndarray, shared: np.ndarray, relevant: np.ndarray | None) -> None:
        """theta, shared (see chance.shared) float [N] of pairs that each count once; relevant as in Kept."""
        for level, kept in self.thresholds.items():
            kept.add(theta, level, relevant)
        of_pair = chance.bands(shared)
        for band, kept in self.bands.items():
            here = of_pair == band
            kept.add(theta[here], self.alpha, None if relevant is None else relevant[here])

    def rows(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """By threshold, and by band; bands without a pair are left out."""
        thresholds = {f"{level:.1f}": kept.row() for level, kept in self.thresholds.items()}
        of_band = {
            band: kept.row()
            | {"expected": round(kept.expected, 1), "expected_kept": round(kept.expected_kept, 1)}
            for band, kept in self.bands.items()
        }
        return thresholds, {band: row for band, row in of_band.items() if row["kept"] or row["dropped"]}


def silent(bands: dict[str, Any], alpha: float) -> list[str]:
    """A note for each band of which the gate keeps next to nothing, while θ expects many of it to be
    relevant. bands: perspective -> band -> row.
    """
    return [
        f"{perspective}: θ > {alpha} keeps {row['kept']} of {row['kept'] + row['dropped']} pairs that share "
        f"{band} of their query's words, where θ expects {row['expected']:.0f} relevant ones"
        for perspective, rows in bands.items()
        for band, row in rows.items()
        if row["expected"] >= SILENT_FROM and row["expected_kept"] < SILENT_SHARE * row["expected"]
    ]
