"""The paper's tables and its open questions on one log: every row trained over several seeds, compared with
intervals.

What several rows share is made once and is kept under out/.cache, named by what it depends on: a run that was
killed, or that shall fill more tables, trains only what is missing.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from crops import perspectives, progress
from crops.config.all import Config
from crops.config.base import StageConfig
from crops.evaluation import comparison as comparisons
from crops.evaluation.claims import TABLES
from crops.report import ablation as page
from crops.retriever import ablations
from crops.retriever.ablations import Variant
from crops.services import world_llm
from crops.stages.base import StageReport
from crops.stages.learn import discriminate, evaluate, label, score, theta, train
from crops.stages.logs import augment, knowledge, validate
from crops.stages.plug import STAGE_FILE
from crops.tables import artifacts, fingerprint, records

Say = Callable[[str, float, StageReport], None]


class Workshop:
    """Folders of finished stages, each named by all that it depends on."""

    def __init__(self, root: Path, logs: Path, say: Say) -> None:
        self.root, self.say, self.source = root, say, fingerprint.of(logs)
        root.mkdir(parents=True, exist_ok=True)

    def made(
        self,
        name: str,
        after: Sequence[Path],
        settings: StageConfig | str,
        make: Callable[[Path], StageReport],
    ) -> Path:
        """The folder of stage `name` with `settings` after the folders `after`; it is made now if it is
        not there yet.
        """
        text = settings if isinstance(settings, str) else settings.model_dump_json()
        parts = (self.source, name, text, *(folder.name for folder in after))
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        folder = self.root / f"{name.replace(' ', '-')}-{digest}"
        if not (folder / STAGE_FILE).is_file():
            started_s = time.monotonic()
            report = make(folder)
            seconds = time.monotonic() - started_s
            entry = {
                "stage": name,
                "seconds": seconds,
                "numbers": report.numbers,
                "notes": list(report.notes),
            }
            artifacts.write_json(folder / STAGE_FILE, entry)
            self.say(name, seconds, report)
        return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What all rows share: folders of the stages up to θ, and the test sets (always those of the unchanged
    settings).
    """

    valid: Path
    mined: Path
    written: Path
    theta: Path
    scores: Path
    truth: Path | None


def run(
    logs: Path,
    out: Path,
    config: Config,
    *,
    tables: Sequence[str] = tuple(TABLES),
    llm: str | None = None,
    say: Say = lambda _name, _seconds, _report: None,
) -> StageReport:
    """Writes ablation.json and ablation.html: `tables` (keys of TABLES) on `logs`."""
    settings = config.section("ablate")
    every = ablations.variants(perspectives.FILTERED.name if settings.form == "paper" else None)
    shown = list(dict.fromkeys(name for table in tables for name in TABLES[table].rows))
    names = [name for name in shown if every[name].of is None]
    shop = Workshop(out / ".cache", logs, say)
    with world_llm.endpoint(logs, llm, shop.root) as url:
        base = _base(shop, logs, config, url)
    plain = _scored(shop, base, config, Variant(system=every[ablations.FULL].system, says=""))
    trained: dict[int, dict[str, Path]] = {}
    with progress.bar(total=settings.seeds * len(names), desc="ablate", unit="training") as bar:
        for seed in range(settings.seeds):
            trained[seed] = {}
            for name in names:
                trained[seed][name] = _trained(shop, base, config, name, every[name], seed)
                bar.update()
    measured = {seed: _measured(shop, base, plain, config, folders) for seed, folders in trained.items()}
    rows = {
        name: _row(every[name], [trained[seed][every[name].of or name] for seed in trained]) for name in shown
    }
    compared = comparisons.compared(
        [pq.read_table(folder / "per_query.parquet").to_pandas() for folder in measured.values()], tables
    )
    simulated = (logs / "world.json").exists()
    report = {
        "form": settings.form,
        "seeds": settings.seeds,
        "simulated": simulated,
        "rows": rows,
        **compared,
    }
    partial = out / ".ablation.html"
    partial.write_text(page.render(report), encoding="utf-8")
    artifacts.write_json(out / "ablation.json", report)
    partial.replace(out / "ablation.html")
    return StageReport(
        numbers={"rows": len(shown), "trainings": settings.seeds * len(names)},
        notes=tuple(compared["findings"]),
    )


def _base(shop: Workshop, logs: Path, config: Config, llm: str | None) -> Base:
    def made(
        name: str, after: Sequence[Path], run: Callable[[Path, Any], StageReport], with_: str = ""
    ) -> Path:
        settings = config.section(name if name != "theta" else "discriminate")
        key = f"{with_}{settings.model_dump_json()}"
        return shop.made(name, after, key, lambda out: run(out, settings))

    valid = made("validate", (), lambda out, cfg: validate.run(logs, out, cfg))
    mined = made("augment", (valid,), lambda out, cfg: augment.run(valid, out, cfg))
    answers = shop.root / "answers.sqlite"
    written = made(
        "knowledge",
        (mined,),
        lambda out, cfg: knowledge.run(mined, out, cfg, llm=llm, cache=answers),
        "llm " if llm else "none ",
    )
    judge = made("theta", (mined,), lambda out, cfg: theta.run(valid, mined, out, cfg))
    scores = shop.made("score", (judge, mined), "", partial(score.run, judge, mined))
    truth = logs / "truth" if artifacts.exists(logs / "truth", records.RELEVANCE) else None
    return Base(valid=valid, mined=mined, written=written, theta=judge, scores=scores, truth=truth)


def _scored(shop: Workshop, base: Base, config: Config, variant: Variant) -> Path:
    """Mined and gated as the variant has it; θ, answers and test sets stay those of the base."""
    mining, gating = (_changed(config.section(name), variant, name) for name in ("augment", "discriminate"))
    mined = shop.made("augment", (base.valid,), mining, lambda out: augment.run(base.valid, out, mining))
    return shop.made(
        "discriminate",
        (base.valid, mined, base.written, base.theta),
        gating,
        lambda out: discriminate.run(
            mined,
            out,
            gating,
            knowledge=[base.written],
            truth=base.truth,
            theta=base.theta,
            scores=[base.scores],
        ),
    )


def _trained(shop: Workshop, base: Base, config: Config, name: str, variant: Variant, seed: int) -> Path:
    scored = _scored(shop, base, config, variant)
    grading = _changed(config.section("label"), variant, "label")
    samples = shop.made(
        "label", (scored,), grading, lambda out: label.run(scored, out, grading, truth=base.truth)
    )
    training = _changed(config.section("train"), variant, "train").model_copy(update={"seed": seed})
    return shop.made(
        f"train {_slug(name)}",
        (samples, base.mined),
        f"{variant.system} {training.model_dump_json()}",
        lambda out: train.run(
            samples, base.mined, out, training, system=name, choices={name: variant.system}
        ),
    )


def _measured(shop: Workshop, base: Base, plain: Path, config: Config, folders: Mapping[str, Path]) -> Path:
    settings = config.section("evaluate")
    return shop.made(
        "evaluate",
        (base.mined, plain, *folders.values()),
        settings,
        lambda out: evaluate.run(base.mined, plain, out, settings, systems=dict(folders), truth=base.truth),
    )


def _changed(settings: Any, variant: Variant, section: str) -> Any:
    """The section's settings with what the variant changes; a mapping is changed key by key."""
    values = settings.model_dump()
    for key, value in variant.changes.get(section, {}).items():
        values[key] = {**values[key], **value} if isinstance(value, Mapping) else value
    return type(settings).model_validate(values)


def _row(variant: Variant, folders: Sequence[Path]) -> dict[str, Any]:
    """What the trainings of one row took: means over its seeds."""
    trainings = [artifacts.read_json(folder / "train.json") for folder in folders]
    stages = [artifacts.read_json(folder / STAGE_FILE) for folder in folders]
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        "says": variant.says,
        "anchor_min": [t["hierarchy"]["anchor_min"] for t in trainings],
        "best_step": [t["best_step"] for t in trainings],
        "seconds": round(mean([s["seconds"] for s in stages]), 1),
        "encodes": round(mean([t["encodes"] for t in trainings])),
    }


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.replace(">=", "from")).strip("-")
