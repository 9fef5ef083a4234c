"""How often does the gate promote one training of a system over another training of the same system?

    python benchmarks/gate_seeds.py RUN --seeds 8        RUN: the folder of a finished `crops run`

Each seed's encoder is trained on the run's samples; the gate's gain is asked of every ordered pair. By
chance alone, with both models as given, 2.5 % of the pairs would pass. The standard deviation of the gain
between two trainings is what `gate.training_spread` is for.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crops import gate
from crops.config.evaluate import EvaluateConfig
from crops.config.train import TrainConfig
from crops.evaluation import metrics as evaluation
from crops.evaluation import trial
from crops.retriever.systems import CHALLENGER
from crops.stages.learn import evaluate, train
from crops.stages.release import gate as stage


def trained(run: Path, seeds: int, cfg: TrainConfig, system: str, work: Path) -> dict[str, Path]:
    """Encoder folders by the name of their seed."""
    (parts,) = (run / ".cache" / "artifacts").iterdir()
    folders = {}
    for seed in range(seeds):
        folders[f"seed {seed}"] = work / str(seed)
        own = cfg.model_copy(update={"seed": seed})
        train.run(parts / "label/out", parts / "augment/out", work / str(seed), own, system=system)
        print(f"seed {seed} trained", flush=True)
    evaluate.run(
        parts / "augment/out", parts / "discriminate/out", work / "metrics", EvaluateConfig(), systems=folders
    )
    return folders


def pairs(metrics: Path, names: list[str]) -> list[gate.Difference]:
    """The gain on qr_raw of every ordered pair."""
    both, chains = stage._values(metrics)[1], stage._chains(metrics / "per_query.parquet")
    found = []
    for ours, theirs in itertools.permutations(names, 2):
        queries = sorted(both["qr_raw", ours])
        a, b = (np.array([both["qr_raw", s][q] for q in queries]) for s in (ours, theirs))
        gap = evaluation.compare(a, b, draws=1_000, seed=0, clusters=trial.chained(queries, chains))
        found.append(gate.Difference("qr_raw", gap["difference"], gap["low"], gap["high"], len(queries)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--system", default=CHALLENGER)
    parser.add_argument("--steps", type=int, default=TrainConfig().steps)
    parser.add_argument("--base", default=TrainConfig().base)
    given = parser.parse_args()
    cfg = TrainConfig(steps=given.steps, base=given.base)
    with tempfile.TemporaryDirectory() as folder:
        names = list(trained(given.run, given.seeds, cfg, given.system, Path(folder)))
        gaps = pairs(Path(folder) / "metrics", names)
    spread = float(np.sqrt(np.mean([gap.difference**2 for gap in gaps])))
    print(
        f"{given.system}, {given.seeds} seeds, {len(gaps)} ordered pairs, {gaps[0].queries} queries of qr_raw"
    )
    print(f"standard deviation of the gain between two trainings: {100 * spread:.2f} points")
    width = np.mean([(gap.high - gap.low) / 2 for gap in gaps])
    print(f"half-width of the gate's interval, mean: {100 * width:.2f} points")
    for label, of in (("both models as given", 0.0), ("with that spread", spread)):
        passed = [gate.gain(gate.widened(gap, spread=of), "qr_raw", min_queries=30).passed for gap in gaps]
        print(f"promoted, {label}: {100 * np.mean(passed):.1f} % of the pairs")


if __name__ == "__main__":
    main()
