"""θ of the gated pairs: the part of `discriminate` that grows with the log, as a task of its own."""

from math import isnan
from pathlib import Path

import pyarrow as pa

from crops import perspectives, progress
from crops.stages.base import WHOLE, Shard, StageReport
from crops.stages.learn import theta as thetas
from crops.tables import artifacts, records


def run(
    theta: Path, candidates: Path, out: Path, *, perspective: str | None = None, shard: Shard = WHOLE
) -> StageReport:
    """Writes `scores` of the distinct pairs of `perspective` (None: of all gated ones) that have a document.

    θ is that of the texts, not of the perspective. `theta`: that stage's out.
    """
    judge = thetas.load(theta)
    texts = artifacts.texts(candidates)
    mined = thetas.learnable(candidates, texts, ["query", "video_id", "perspective"])
    clicked = thetas.clicked(mined, texts)
    scores: dict[tuple[str, str], tuple[float, float]] = {}
    for name in [perspective] if perspective else perspectives.names(gated=True):
        own = mined[mined["perspective"] == name]
        pairs = sorted(
            {
                (query, video)
                for query, video in zip(own["query"], own["video_id"], strict=True)
                if shard.holds(query)
            }
        )
        with progress.bar(total=len(pairs), desc=f"scoring {name}", unit="pair") as bar:
            queries, read = [q for q, _ in pairs], [texts[d] for _, d in pairs]
            theta_of, nearest = judge.read(queries, read, clicked, progress=bar.update)
        scores |= dict(zip(pairs, zip(theta_of.tolist(), nearest.tolist(), strict=True), strict=True))
    rows = [
        {"query": q, "doc_id": d, "theta": score, "nearest": None if isnan(nearest) else nearest}
        for (q, d), (score, nearest) in sorted(scores.items())
    ]
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SCORES, pa.Table.from_pylist(rows, schema=records.SCORES.schema))
    return StageReport(numbers={"pairs_scored": len(rows)})
