"""θ of the gated pairs: the part of `discriminate` that grows with the log, as a task of its own."""

from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from crops import perspectives
from crops.stages.base import WHOLE, Shard, StageReport
from crops.stages.learn import theta as thetas
from crops.tables import artifacts, records


def run(
    theta: Path, candidates: Path, out: Path, *, perspective: str | None = None, shard: Shard = WHOLE
) -> StageReport:
    """Writes `scores` of the distinct pairs of `perspective` (None: of all gated ones) that have a document.

    θ is not shifted. `theta`: that stage's out.
    """
    judge = thetas.load(theta)
    texts = artifacts.texts(candidates)
    mined = artifacts.read(candidates, records.CANDIDATES, ["query", "video_id", "perspective"]).to_pylist()
    scores: dict[tuple[str, str], float] = {}
    for name in [perspective] if perspective else perspectives.names(gated=True):
        pairs = sorted(
            {
                (r["query"], r["video_id"])
                for r in mined
                if r["perspective"] == name and shard.holds(r["query"]) and r["video_id"] in texts
            }
        )
        with tqdm(total=len(pairs), desc=f"scoring {name}", unit="pair", disable=None) as bar:
            theta_of = judge.theta([q for q, _ in pairs], [texts[d] for _, d in pairs], progress=bar.update)
        scores |= dict(zip(pairs, theta_of.tolist(), strict=True))
    rows = [{"query": q, "doc_id": d, "theta": score} for (q, d), score in sorted(scores.items())]
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SCORES, pa.Table.from_pylist(rows, schema=records.SCORES.schema))
    return StageReport(numbers={"pairs_scored": len(rows)})
