"""θ of the gated pairs: the part of `discriminate` that grows with the log, as a task of its own."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from crops import perspectives, progress
from crops.discriminator import joined, pairs
from crops.discriminator.score import remembering
from crops.engines import session
from crops.stages.base import WHOLE, Shard, StageReport
from crops.stages.learn import material
from crops.stages.learn import theta as thetas
from crops.tables import artifacts, pieces, records

# Pairs that are read at once: with their texts, tokens and vectors some 0.3 GB.
PIECE_ROWS = 200_000


def run(
    theta: Path, candidates: Path, out: Path, *, perspective: str | None = None, shard: Shard = WHOLE
) -> StageReport:
    """Writes `scores` of the distinct pairs of `perspective` (None: of all gated ones) that have a document.

    θ is that of the texts, not of the perspective. `theta`: that stage's out. Memory grows with the
    catalogue, not with the pairs: they come from the engine by query, a piece at a time.
    """
    judge = thetas.load(theta)
    judge = replace(judge, embed=remembering(judge.embed))
    texts = artifacts.texts(candidates)
    names = [perspective] if perspective else perspectives.names(gated=True)
    with artifacts.replacing(out) as folder:
        scratch = folder / ".scratch"
        with (
            session.opened("duckdb", scratch=scratch) as house,
            pieces.Writer(folder, records.SCORES) as done,
        ):
            mined = house.keep(pairs.asked(material.learnable(house, candidates), names), "mined")
            total = house.fetch(mined.agg(asked=mined["asked"].sum()))[0]["asked"] or 0
            ordered = house.stream(mined.order_by("query", "doc_id"))
            with progress.bar(total=total // shard.count, desc="scoring", unit="pair") as bar:
                for piece in pieces.whole(ordered, "query", rows=PIECE_ROWS):
                    done.add(_scored(judge, pieces.holding(piece, "query", shard.holds), texts, bar.update))
        shutil.rmtree(scratch, ignore_errors=True)
    return StageReport(numbers={"pairs_scored": done.rows, **judge.spent.numbers()})


def _scored(
    judge: joined.Discriminator, piece: pa.Table, texts: Mapping[str, str], seen: Callable[[int], Any]
) -> pa.Table:
    """in: (query, doc_id, asked, clicked), queries whole; out: the rows of `scores` of those asked for."""
    rows = piece.to_pandas()
    own = rows[rows["asked"]]
    of_query = pairs.clicked(rows[rows["query"].isin(own["query"])], texts)
    queries, read = own["query"].tolist(), own["doc_id"].map(texts).tolist()
    theta, nearest = judge.read(queries, read, of_query, progress=seen)
    return pa.table(
        {
            "query": queries,
            "doc_id": own["doc_id"].tolist(),
            "theta": theta,
            "nearest": pa.array(nearest, from_pandas=True),
        }
    )
