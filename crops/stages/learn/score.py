"""θ of one perspective's candidate pairs: the part of `discriminate` that grows with the log, as a task of
its own.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from crops.stages.base import WHOLE, Shard, StageReport
from crops.stages.learn import theta as thetas
from crops.tables import artifacts, records


def run(theta: Path, candidates: Path, out: Path, *, perspective: str, shard: Shard = WHOLE) -> StageReport:
    """Writes `scores` of the distinct pairs of `perspective` that have a document, not shifted; `theta`: that
    stage's out.
    """
    judge, _dual, _about = thetas.load(theta)
    texts = {r["doc_id"]: r["text"] for r in artifacts.read(candidates, records.DOCUMENTS).to_pylist()}
    mined = artifacts.read(candidates, records.CANDIDATES, ["query", "video_id", "perspective"]).to_pylist()
    pairs = sorted(
        {
            (r["query"], r["video_id"])
            for r in mined
            if _asked(r, perspective, shard) and r["video_id"] in texts
        }
    )
    with tqdm(total=len(pairs), desc=f"scoring {perspective}", unit="pair", disable=None) as bar:
        found = judge.theta([q for q, _ in pairs], [texts[d] for _, d in pairs], progress=bar.update)
    columns = {
        "query": [q for q, _ in pairs],
        "doc_id": [d for _, d in pairs],
        "theta": found.astype(np.float32),
    }
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SCORES, pa.table(columns, schema=records.SCORES.schema))
    return StageReport(numbers={"pairs_scored": len(pairs)})


def _asked(row: dict[str, str], perspective: str, shard: Shard) -> bool:
    return row["perspective"] == perspective and shard.holds(row["query"])
