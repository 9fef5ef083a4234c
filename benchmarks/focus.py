"""Does it help to spend a training's steps where the base is wrong?

    python benchmarks/focus.py --samples LABEL --documents AUGMENT --truth TRUTH --seeds 3

LABEL and AUGMENT: what `crops label` and `crops augment` wrote; TRUTH: a Parquet file (query, video_id) of
what is relevant, or the folder truth/ of a simulated world. `crops` is trained on these samples in each way,
to as many encodes as plain sampling takes: a way that encodes more in a step takes fewer. Measured is
recall@100 and @20 by truth on the queries of the held-out day, paired by query over all seeds.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks import report
from crops import labels
from crops.config.train import TrainConfig
from crops.evaluation import metrics
from crops.release import index
from crops.retriever import systems
from crops.retriever import train as loop
from crops.retriever.batch import Batches
from crops.retriever.encoder import Encoder
from crops.retriever.ranks import ALONE
from crops.stages.learn import train
from crops.tables import artifacts, records

WAYS: dict[str, dict[str, float]] = {
    "plain": {},
    "half of the turns by rank": {"hard_share": 0.5},
    "all turns by rank": {"hard_share": 1.0},
    "2 hard negatives": {"hard_negatives": 2},
    "2 hard negatives, margin 0.8": {"hard_negatives": 2, "hard_margin": 0.8},
    "half by rank, 2 hard negatives": {"hard_share": 0.5, "hard_negatives": 2},
}
KS = (100, 20)


def relevant(truth: Path, documents: Path) -> dict[str, set[int]]:
    """Query of the held-out day -> rows of the catalogue, in the order of their ids."""
    if truth.is_dir():
        pairs = artifacts.read(truth, records.RELEVANCE).to_pandas()
        pairs = pairs[pairs["grade"] >= records.RELEVANT_GRADE]
    else:
        pairs = pd.read_parquet(truth)
    queries = artifacts.read(documents, records.QUERIES).to_pandas()
    asked = pairs[pairs["query"].isin(queries[queries["split"] == "test"]["query"])]
    row_of = {d: n for n, d in enumerate(sorted(artifacts.texts(documents)))}
    found: dict[str, set[int]] = {}
    for query, video in zip(asked["query"], asked["video_id"], strict=True):
        if video in row_of:
            found.setdefault(query, set()).add(row_of[video])
    return found


def encodes(inputs: train.Inputs, cfg: TrainConfig, focused: dict, anchor_min: int) -> float:
    """Texts and queries of a step, mean over twenty."""
    sizes = {"size": cfg.batch_queries, "positives": cfg.positives, "lower": cfg.lower}
    batches = Batches(inputs.samples, anchor_min=anchor_min, seed=0, **sizes, **focused)
    drawn = [batches.at(step) for step in range(20)]
    return float(np.mean([len(b.queries) + len(b.texts) for b in drawn]))


def recalls(encoder: Encoder, texts: list[str], truth: dict[str, set[int]]) -> np.ndarray:
    """float [Q, K]: of every query, at each of KS; truth: query -> rows of `texts`."""
    vectors = encoder.encode(texts, kind="document")
    ranked = index.exact(vectors, encoder.encode([*truth], kind="query"), max(KS))[1]
    return np.stack([metrics.recall_per_query(ranked, [*truth.values()], k) for k in KS], axis=1)


def main() -> None:
    parser = report.arguments(__doc__ or "")
    for name in ("samples", "documents", "truth"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base", default=TrainConfig().base)
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS])
    given = parser.parse_args()
    graded = artifacts.read_json(given.samples / "label.json")["hierarchy"]
    inputs = train.inputs_of(
        given.samples, given.documents, systems.SYSTEMS[systems.CHALLENGER], graded["labels"]
    )
    anchor_min = labels.rank(graded["anchor_min_candidates"][0], graded["labels"])
    truth = relevant(given.truth, given.documents)
    found: dict[str, list[np.ndarray]] = {}
    rows: dict[str, list[list[str]]] = {}
    for seed in range(given.seeds):
        usual = 0.0
        for name in given.ways:
            cfg = TrainConfig(base=given.base, seed=seed, **WAYS[name])
            plan = train.plan_of(cfg, cfg.loss, anchor_min, queries=len(inputs.samples.queries))
            sizes = train.sizes_of(cfg)
            encoder = train.encoder_of(cfg, inputs.corpus)
            if "the base, untouched" not in found:
                found["the base, untouched"] = [recalls(encoder, inputs.valid.texts, truth)]
            per_step = encodes(inputs, cfg, loop.focused(encoder, inputs.samples, sizes, ALONE), anchor_min)
            usual = usual or per_step
            steps = round(plan.steps * usual / per_step)
            plan = replace(plan, steps=steps, horizon=steps, check_every=max(1, steps // 8), patience=99)
            with tempfile.TemporaryDirectory() as folder:
                trained, history, _plan = loop.best(
                    lambda encoder=encoder: encoder,
                    inputs.samples,
                    inputs.valid,
                    [plan],
                    sizes,
                    probe_steps=1,
                    checkpoints=Path(folder),
                )
            found.setdefault(name, []).append(recalls(trained, inputs.valid.texts, truth))
            rows.setdefault(name, []).append([steps, history["encodes"], history["best_step"]])
            print(seed, name, found[name][-1].mean(axis=0).round(4), rows[name][-1], flush=True)
    lines = []
    plain = np.concatenate(found[given.ways[0]])
    for name, values in found.items():
        mean = np.concatenate(values).mean(axis=0)
        cells = [f"{100 * x:.1f}" for x in mean]
        for column in range(len(KS)):
            if name in (given.ways[0], "the base, untouched"):
                cells.append("")
                continue
            # Queries are drawn with all of their seeds: one query's trainings are no independent words.
            clusters = np.tile(np.arange(len(truth)), given.seeds)
            gap = metrics.compare(
                np.concatenate(values)[:, column], plain[:, column], draws=1000, seed=0, clusters=clusters
            )
            cells.append(report.points(gap))
        taken = np.mean(rows[name], axis=0) if name in rows else (0, 0, 0)
        lines.append([name, *cells, f"{taken[0]:.0f}", f"{taken[1]:,.0f}"])
    header = ["way", "@100", "@20", "@100 against plain", "@20 against plain", "steps", "encodes"]
    text = (
        f"# Steps where the base is wrong\n\n{len(truth)} queries, {given.seeds} seeds of training, base "
        f"{given.base}; recall by truth, %.\n\n"
        + report.table(header, lines)
        + "\n\n"
        + report.machine(["torch"])
    )
    report.out("focus", text, write=given.write)


if __name__ == "__main__":
    main()
