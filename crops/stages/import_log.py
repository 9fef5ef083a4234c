"""A public data set to the tables: read the file, convert, write."""

from pathlib import Path

import pyarrow.compute as pc

from crops import records
from crops.adapters import trec_session
from crops.errors import ConfigError
from crops.io import artifacts
from crops.stages.base import StageReport


def run(src: Path, out: Path, *, dataset: str = "trec-session") -> StageReport:
    """Writes searches, results, videos and truth/relevance (weak: what others clicked for the same topic) under `out`."""
    if dataset != "trec-session":
        raise ConfigError(f"dataset is {dataset!r}, expected trec-session")
    found = trec_session.convert(src.read_bytes(), str(src))
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SEARCHES, found.searches)
        artifacts.write(folder, records.RESULTS, found.results)
        artifacts.write(folder, records.VIDEOS, found.videos)
        artifacts.write(folder / "truth", records.RELEVANCE, found.relevance)
    return StageReport(
        numbers={
            "searches": found.searches.num_rows, "results": found.results.num_rows, "videos": found.videos.num_rows,
            "clicked_results": pc.sum(found.results["clicked"]).as_py() or 0, "weak_truth_pairs": found.relevance.num_rows,
        },
        notes=("feed: no such table in this data set", "times are relative in the file: the dates are made up",
               "truth/relevance is weak: what other sessions clicked for the same topic"),
    )  # fmt: skip
