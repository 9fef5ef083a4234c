"""Grades of (query, document) pairs: the world's complete truth, or what people judged of a sample."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crops.tables import artifacts, records

if TYPE_CHECKING:
    import ibis.expr.types as ir

SAMPLE = "judgement.json"  # beside the table where it is a sample: what is not in it is not known
POOL = "pool"  # the folder, beside a sample of candidates, of what people said of pooled results


@dataclass(frozen=True, slots=True)
class Grades:
    """`table`: (query, doc_id, grade). complete: a pair of a listed query that is not in it is irrelevant;
    else unknown.
    """

    table: pd.DataFrame
    complete: bool

    def relevant(self, queries: pd.Series, doc_ids: pd.Series) -> np.ndarray:
        """float64 [N]: 1 relevant, 0 not, NaN not known."""
        pairs = pd.DataFrame({"query": queries.to_numpy(), "doc_id": doc_ids.to_numpy()})
        grade = pairs.merge(self.table, how="left", on=["query", "doc_id"])["grade"].to_numpy(np.float64)
        if self.complete:
            listed = pairs["query"].isin(set(self.table["query"])).to_numpy()
            grade = np.where(np.isnan(grade) & listed, 0.0, grade)
        return np.where(np.isnan(grade), np.nan, (grade >= records.RELEVANT_GRADE).astype(np.float64))

    def known(self, rows: "ir.Table", table: "ir.Table") -> "ir.Table":
        """The rows (query, doc_id, ...) of which it is known, with the column `relevant`, as `relevant` has
        it; in the engine that holds `table`, which is this one's.
        """
        listed = rows.semi_join(table, "query")
        of_pair = table.group_by("query", "doc_id").agg(grade=table["grade"].max())
        graded = listed.left_join(of_pair, ["query", "doc_id"]).select(*rows.columns, "grade")
        relevant = (graded["grade"] >= records.RELEVANT_GRADE).cast("float64")
        told = graded.mutate(relevant=relevant.fill_null(0.0) if self.complete else relevant)
        return told.filter(told["relevant"].notnull()).drop("grade")


def read(folder: Path | None) -> Grades | None:
    """The table relevance under `folder`, or None where there is none."""
    if folder is None or not artifacts.exists(folder, records.RELEVANCE):
        return None
    table = artifacts.read(folder, records.RELEVANCE).to_pandas().rename(columns={"video_id": "doc_id"})
    return Grades(table, not (folder / SAMPLE).exists())


def measuring(folder: Path | None) -> Grades | None:
    """The grades that systems may be measured by: the complete truth, or what people said of pooled results.

    A sample of candidates is none: most of its relevant pairs are what the systems learnt from.
    """
    grades = read(folder)
    if folder is None or (grades is not None and (grades.complete or folder.name == POOL)):
        return grades
    return read(folder / POOL)
