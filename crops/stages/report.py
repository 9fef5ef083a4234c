"""What all stages wrote to report.json and report.html."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.config.register import RegisterConfig
from crops.config.report import ReportConfig
from crops.mining import knowledge
from crops.release import layout
from crops.report import beside, headline, made, page, queries
from crops.services.registry import near
from crops.stages import plug
from crops.stages.base import StageReport
from crops.stages.plug import STAGE_FILE
from crops.stages.release import pairs
from crops.tables import artifacts, records

DATA_DOCS = "data_docs"
# Stages in the order in which they run, by the first word of their name.
ORDER = [
    "validate",
    "augment",
    "champion",
    "theta",
    "knowledge",
    "score",
    "discriminate",
    "label",
    "train",
    "evaluate",
    "first",
    "refit",
    "export",
    "index",
    "baseline",
    "gate",
    "register",
]
FROM_METRICS = ("recall_at_100", "recall_at_20", "ndcg_at_4", "intervals", "counts")


def run(
    folders: Mapping[str, str], out: Path, cfg: ReportConfig, *, shards: Mapping[str, Sequence[str]]
) -> StageReport:
    """`folders`: by stage, what it wrote, and as `source` what lies beside the tables of the logs; `shards`:
    those of knowledge, score and train (a system each).
    """
    paths = {name: Path(folder) for name, folder in folders.items()}
    parts_of = {name: [Path(folder) for folder in folders_of] for name, folders_of in shards.items()}
    every = [*(p for n, p in paths.items() if n != "source"), *chain.from_iterable(parts_of.values())]
    # What is released is the challenger's own folder where there was no last fit.
    measured = [
        artifacts.read_json(p / STAGE_FILE) for p in dict.fromkeys(every) if (p / STAGE_FILE).exists()
    ]
    measured.sort(key=lambda entry: [*ORDER, entry["stage"].split()[0]].index(entry["stage"].split()[0]))
    metrics = artifacts.read_json(paths["evaluated"] / "metrics.json")
    label = artifacts.read_json(paths["label"] / "label.json")
    verdict = artifacts.read_json(paths["gate"] / "verdict.json")
    report = {
        **{key: metrics.get(key) for key in FROM_METRICS},
        "headline": headline.of(metrics),
        "ladder": label.get("ladder"),
        "hierarchy": label.get("hierarchy"),
        "seconds": {entry["stage"]: round(entry["seconds"], 1) for entry in measured},
        "gate": {"verdict": verdict["verdict"], "reasons": verdict["reasons"]},
        "release": artifacts.read_json(paths["register"] / "release.json"),
    }
    report["release"]["last_fit"] = _json(paths["released"] / "train.json").get(layout.LAST_FIT)
    report["release"]["baseline"] = artifacts.read_json(paths["baseline"] / "release.json")
    parts: dict[str, Any] = {n: _json(paths[n] / f"{n}.json") for n in ("augment", "discriminate")}
    parts["knowledge"] = knowledge.merged([_json(p / "knowledge.json") for p in parts_of["knowledge"]])
    parts |= {"evaluate": metrics, "label": label, "gate": verdict, "stages": measured}
    parts["train"] = {name: _json(p / "train.json") for name, p in plug.systems(parts_of["train"]).items()}
    parts["validate"] = _json(paths["validate"] / "validation.json")
    # None of a folder that an older version wrote.
    parts["memory_gb"] = {e["stage"]: e["memory_gb"] for e in measured if "memory_gb" in e}
    parts["notes"] = [f"{entry['stage']}: {note}" for entry in measured for note in entry["notes"]]
    compared = _compared(paths["evaluated"] / "per_query.parquet", report, most=cfg.queries)
    shown: dict[str, Any] = {
        "title": cfg.title,
        "examples": cfg.examples,
        "simulated": (paths["source"] / "world.json").exists(),
        "registry": _registry(report["release"]),
        "compared": compared,
        "side_by_side": _beside(compared, paths, cfg, settings=made.settings(measured)),
    }
    docs = paths["validate"] / DATA_DOCS
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "report.json", report)
        if docs.is_dir():
            shutil.copytree(docs, folder / DATA_DOCS)
        link = f"{DATA_DOCS}/index.html" if docs.is_dir() else None
        html = page.render(report, parts, data_docs=link, **shown)
        (folder / "report.html").write_text(html, encoding="utf-8")
    if cfg.publish:
        artifacts.publish([out / "report.html", out / "report.json"], cfg.publish)
        if docs.is_dir():
            artifacts.publish(
                sorted((out / DATA_DOCS).glob("*.html")), f"{cfg.publish.rstrip('/')}/{DATA_DOCS}"
            )
    return StageReport(
        numbers={"stages": len(measured), "seconds": sum(entry["seconds"] for entry in measured)}
    )


def _registry(release: dict[str, Any]) -> str | None:
    uri = release.get("registry") or release["baseline"].get("registry")
    return near(uri) if uri else None


def _compared(path: Path, report: dict[str, Any], *, most: int) -> list[dict[str, Any]]:
    """Queries won and lost; none where evaluate wrote none."""
    if not path.exists():
        return []
    columns = ["set", "system", "query", "recall_at_100"]
    return queries.compared(pq.read_table(path, columns=columns).to_pylist(), report, most=most)


def _beside(
    compared: list[dict[str, Any]],
    paths: Mapping[str, Path],
    cfg: ReportConfig,
    *,
    settings: Mapping[str, Any],
) -> dict[str, Any] | None:
    """What the systems answer to the queries most won and lost; None where evaluate kept no results."""
    if not cfg.beside or not (paths["evaluated"] / records.TOPS.name).is_dir():
        return None
    asked, sides = beside.chosen(compared, most=cfg.beside), beside.sides(compared)
    wanted = {"query": {*chain.from_iterable(asked.values())}, "system": {*sides}}
    tops = artifacts.read(paths["evaluated"], records.TOPS, **wanted)
    tops = tops.filter(pc.less_equal(tops["rank"], cfg.results)).sort_by("rank")
    doc_ids = {*tops["doc_id"].to_pylist()}
    # The page goes to as many hands as a release does.
    least = settings.get("register", {}).get("min_users", RegisterConfig().min_users)
    names = pairs.common(paths["augment"], least)
    learnt = pairs.of(names, paths["augment"], paths["label"], doc_ids=doc_ids)
    documents = artifacts.read(paths["augment"], records.DOCUMENTS, doc_id=doc_ids)
    captions = {row["doc_id"]: row["text"].split(" | ")[0] for row in documents.to_pylist()}
    return beside.of(asked, sides, tops.to_pylist(), learnt.to_pylist(), captions)


def _json(path: Path) -> dict[str, Any]:
    """A stage that did not run has nothing to show; the page then leaves its part out."""
    content: dict[str, Any] = artifacts.read_json(path) if path.exists() else {}
    return content
