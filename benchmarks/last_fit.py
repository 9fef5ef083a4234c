"""What does the last fit give to tomorrow's searches?

    python benchmarks/last_fit.py [--seeds 3]

The shop's log of shop.py without its last day goes through `crops run` with `train.last_fit`. The measured
encoder, and the one that was trained anew on all days, answer the queries of the day that was left out;
recall by truth, paired by query. `new`: queries that no earlier day holds.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import crops
from benchmarks import focus, report, shop
from crops.evaluation import metrics
from crops.retriever import encoder as encoders
from crops.retriever.systems import CHALLENGER

SETS = ("all", "new")


def measured(seed: int, work: Path) -> pd.DataFrame:
    """(seed, query, set, measured, fitted) with recalls at focus.KS of each."""
    logs, run, config = work / "logs", work / "run", work / "config.yaml"
    truth = shop.Shop(seed).write(logs)
    last = max(p.name for p in (logs / "searches").iterdir())
    day = pd.read_parquet(next((logs / "searches" / last).glob("*.parquet")), columns=["query"])
    for table in ("searches", "results", "feed"):
        for part in (logs / table).iterdir():
            if part.name >= last:
                shutil.rmtree(part)
    config.write_text("train: {last_fit: true}\n")
    command = [sys.executable, "-m", "crops", "run", "--logs", str(logs), "--out", str(run)]
    command += ["--config", str(config), "--registry", f"sqlite:///{work}/mlflow.db"]
    assert subprocess.run(command, check=False).returncode in (0, 3, 4)
    asked_before = set(pd.read_parquet(logs / "searches", columns=["query"])["query"])
    mined = crops.mine(logs)
    parts = {
        history: json.loads(history.read_text())
        for history in run.glob(".cache/artifacts/*/*/out/train.json")
    }
    parts = {history.parent: facts for history, facts in parts.items() if facts["system"] == CHALLENGER}
    before = next(p for p, facts in parts.items() if "last_fit" not in facts)
    after = next(p for p, facts in parts.items() if facts.get("last_fit", {}).get("released"))
    documents = mined.documents.to_pandas().sort_values("doc_id")
    row_of = {d: n for n, d in enumerate(documents["doc_id"])}
    asked = truth[truth["query"].isin(day["query"])]
    relevant = {q: {row_of[v] for v in part["video_id"]} for q, part in asked.groupby("query")}
    rows = pd.DataFrame({"seed": seed, "query": [*relevant]})
    rows["set"] = ["new" if query not in asked_before else "" for query in relevant]
    for name, folder in {"measured": before, "fitted": after}.items():
        columns = [f"{name}@{k}" for k in focus.KS]
        rows[columns] = focus.recalls(encoders.load(folder), documents["text"].tolist(), relevant)
    return rows


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as work:
            rows.append(measured(seed, Path(work)))
    table = pd.concat(rows)
    lines = []
    for name in SETS:
        part = table if name == "all" else table[table["set"] == name]
        cells = [name, str(len(part))]
        for k in focus.KS:
            ours, theirs = part[f"fitted@{k}"].to_numpy(), part[f"measured@{k}"].to_numpy()
            gap = metrics.compare(ours, theirs, draws=1000, seed=0, clusters=np.arange(len(part)))
            cells += [f"{100 * theirs.mean():.1f}", f"{100 * ours.mean():.1f}", report.points(gap)]
        lines.append(cells)
    header = ["queries", "number", *(f"{x}@{k}" for k in focus.KS for x in ("measured", "fitted", "gain"))]
    text = (
        "# The last fit: recall by truth on the day after, %\n\n"
        f"{given.seeds} seeds of the shop's log, one training each.\n\n"
        + report.table(header, lines)
        + "\n\n"
        + report.machine(["torch"])
    )
    report.out("last_fit", text, write=given.write)


if __name__ == "__main__":
    main()
