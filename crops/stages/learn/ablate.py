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
from crops.config.knowledge import KnowledgeConfig
from crops.errors import InputError
from crops.evaluation import claims
from crops.evaluation import comparison as comparisons
from crops.report import ablation as page
from crops.retriever import ablations
from crops.retriever.ablations import Variant
from crops.retriever.systems import fused_of, reranked_of, sees
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
    theta: Path
    scores: Path
    truth: Path | None
    llm: str | None


def run(
    logs: Path,
    out: Path,
    config: Config,
    *,
    tables: Sequence[str] = (),
    llm: str | None = None,
    say: Say = lambda _name, _seconds, _report: None,
) -> StageReport:
    """Writes ablation.json and ablation.html: `tables` (keys of claims.tables(); none: all) on `logs`."""
    settings = config.section("ablate")
    config = config.with_value("augment", "evidence", True)
    every = ablations.variants(perspectives.FILTERED.name if settings.form == "paper" else None)
    there = claims.tables()
    tables = tables or tuple(there)
    if claims.REGISTERED in tables and claims.REGISTERED not in there:
        raise InputError(
            f"--table {claims.REGISTERED}",
            f"no installed package registers a perspective in the entry point group {perspectives.GROUP}",
        )
    shown = list(dict.fromkeys(name for table in tables for name in there[table].rows))
    names = [name for name in shown if every[name].of is None]
    shop = Workshop(out / ".cache", logs, say)
    trained: dict[int, dict[str, Path]] = {}
    with (
        world_llm.endpoint(logs, llm, shop.root) as url,
        progress.bar(total=settings.seeds * len(names), desc="ablate", unit="training") as bar,
    ):
        base = _base(shop, logs, config, url)
        plain = _scored(shop, base, config, Variant(system=every[ablations.FULL].system, says=""))
        for seed in range(settings.seeds):
            trained[seed] = {}
            for name in names:
                trained[seed][name] = _trained(shop, base, config, name, every[name], seed)
                bar.update()
    others = {
        "fusion": fused_of(ablations.FULL) in shown,
        "rerank": ablations.RERANK if reranked_of(ablations.FULL) in shown else 0,
    }
    measured = {
        seed: _measured(shop, base, plain, config, folders, others) for seed, folders in trained.items()
    }
    rows = {
        name: _row(every[name], [trained[seed][every[name].of or name] for seed in trained]) for name in shown
    }
    for name in shown:
        rows[name]["tokens"] = _tokens(shop, base, config, every[name])
    compared = comparisons.compared(
        [pq.read_table(folder / "per_query.parquet").to_pandas() for folder in measured.values()], tables
    )
    comparisons.priced(rows, compared["values"])
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
    def made(name: str, after: Sequence[Path], run: Callable[[Path, Any], StageReport]) -> Path:
        settings = config.section(name if name != "theta" else "discriminate")
        return shop.made(name, after, settings, lambda out: run(out, settings))

    valid = made("validate", (), lambda out, cfg: validate.run(logs, out, cfg))
    mined = made("augment", (valid,), lambda out, cfg: augment.run(valid, out, cfg))
    judge = made("theta", (mined,), lambda out, cfg: theta.run(valid, mined, out, cfg))
    scores = shop.made("score", (judge, mined), "", partial(score.run, judge, mined))
    truth = logs / "truth" if artifacts.exists(logs / "truth", records.RELEVANCE) else None
    return Base(valid=valid, mined=mined, theta=judge, scores=scores, truth=truth, llm=llm)


def _asked(shop: Workshop, mined: Path, llm: str | None, settings: KnowledgeConfig) -> Path:
    """What the LLM answers; without one, nothing. Rows that ask otherwise share the answers of before."""
    key = f"{'llm' if llm else 'none'} {settings.model_dump_json()}"
    cache = shop.root / "answers.sqlite"
    make = partial(knowledge.run, mined, cfg=settings, llm=llm, cache=cache)
    return shop.made("knowledge", (mined,), key, make)


def _tokens(shop: Workshop, base: Base, config: Config, variant: Variant) -> int:
    """What the LLM took for the row, its questions asked by nobody before; a store's answers are free."""
    if not sees(variant.system, perspectives.KNOWLEDGE.name):
        return 0
    asked = _asked(shop, base.mined, base.llm, _changed(config.section("knowledge"), variant, "knowledge"))
    return int(artifacts.read_json(asked / "knowledge.json").get("tokens", 0))


def _scored(shop: Workshop, base: Base, config: Config, variant: Variant) -> Path:
    """Mined, asked and gated as the variant has it; θ and test sets stay those of the base."""
    mining, asking, gating = (
        _changed(config.section(name), variant, name) for name in ("augment", "knowledge", "discriminate")
    )
    written = _asked(shop, base.mined, base.llm, asking)
    mined = shop.made("augment", (base.valid,), mining, lambda out: augment.run(base.valid, out, mining))
    return shop.made(
        "discriminate",
        (base.valid, mined, written, base.theta),
        gating,
        lambda out: discriminate.run(
            mined, out, gating, knowledge=[written], truth=base.truth, theta=base.theta, scores=[base.scores]
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


def _measured(
    shop: Workshop,
    base: Base,
    plain: Path,
    config: Config,
    folders: Mapping[str, Path],
    others: Mapping[str, Any],
) -> Path:
    """others: settings of evaluate for rows that are other rankings of the full system."""
    settings = config.section("evaluate").model_copy(update=dict(others))
    return shop.made(
        "evaluate",
        (base.mined, plain, *folders.values()),
        settings,
        lambda out: evaluate.run(
            base.mined, plain, out, settings, systems=dict(folders), truth=base.truth, fuse=ablations.FULL
        ),
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
