"""Samples to one trained dual encoder, at its best check on the last training day's reformulations."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from crops import accelerator, base_model, labels, memory
from crops.config.train import TrainConfig
from crops.errors import ConfigError, InputError
from crops.retriever import encoder as encoders
from crops.retriever import finetuning, generative, mnrl, systems, train
from crops.retriever import teacher as teachers
from crops.retriever.batch import Batches
from crops.retriever.errors import NothingToTrainOn, TrainingError
from crops.retriever.ranks import ALONE, Ranks, joined
from crops.retriever.weights import Weights
from crops.services import tracking as tracking_run
from crops.services.registry import Registry, uri_of
from crops.stages.base import StageReport
from crops.stages.learn.inputs import Inputs, inputs_of
from crops.tables import artifacts

RELEASE = "models:/"  # before NAME/VERSION: a base that is a registered release
LEAST_STEPS, MOST_STEPS = 200, 20_000  # where the log's size says how long to train
SYSTEMS = tuple(systems.SYSTEMS)
FACTS = "train.json"


def run(
    samples: Path,
    documents: Path,
    out: Path,
    cfg: TrainConfig,
    *,
    system: str = systems.CHALLENGER,
    checkpoints: Path | None = None,
    log: train.Log | None = None,
    tracking: str | None = None,
    choices: Mapping[str, systems.System] = systems.SYSTEMS,
) -> StageReport:
    """Trains `system` on `samples` (label's out) with texts and validation from `documents` (augment's out).

    `tracking`: an MLflow tracking URI that gets every check's numbers while it trains, and has the releases
    that `cfg.base` and `cfg.teacher` may name. `choices`: the systems there are. Those that a team has
    without CroPS are neither weighed nor taught.
    """
    # Started by torchrun, every rank comes through here; the first one tracks and writes.
    with at_hand(cfg, tracking) as here, joined() as ranks:
        if system in systems.ALTERNATIVES:
            here = here.model_copy(update={"weigh": (), "teacher": None})
        return _run(
            samples,
            documents,
            out,
            cfg,
            here,
            system=system,
            checkpoints=checkpoints,
            log=log,
            tracking=tracking,
            choices=choices,
            ranks=ranks,
        )


@contextmanager
def at_hand(cfg: TrainConfig, registry: str | None) -> Iterator[TrainConfig]:
    """The settings with folders in place of the releases models:/NAME/VERSION that they name, as long as they
    are trained on.
    """
    with tempfile.TemporaryDirectory(prefix="crops-base-") as folder:
        names = {key: getattr(cfg, key) or "" for key in ("base", "teacher")}
        releases = {key: name for key, name in names.items() if name.startswith(RELEASE)}
        yield cfg.model_copy(
            update={key: _downloaded(key, name, registry, Path(folder)) for key, name in releases.items()}
        )


def _downloaded(key: str, setting: str, registry: str | None, folder: Path) -> str:
    name, slash, version = setting.removeprefix(RELEASE).partition("/")
    if not slash:
        raise ConfigError(f"train.{key} is {setting!r}, expected {RELEASE}NAME/VERSION")
    return str(Registry(registry or uri_of(), name).download(version, folder / key / name))


def _run(
    samples: Path,
    documents: Path,
    out: Path,
    given: TrainConfig,
    cfg: TrainConfig,
    *,
    system: str,
    checkpoints: Path | None,
    log: train.Log | None,
    tracking: str | None,
    choices: Mapping[str, systems.System],
    ranks: Ranks,
) -> StageReport:
    if system not in choices:
        raise ConfigError(f"system is {system!r}, expected one of {', '.join(choices)}")
    hierarchy = artifacts.read_json(samples / "label.json")["hierarchy"]
    chosen = choices[system]
    graded = hierarchy["labels"]
    home = checkpoints or out.with_name(f".{out.name}.checkpoints")

    def mapped() -> Inputs:
        return inputs_of(samples, documents, chosen, graded, weights=weights_of(cfg), home=home)

    if ranks.count > 1:
        ranks.from_first(lambda: mapped().digest)  # the others map what the first has written
    inputs = mapped()
    lowest = [graded[chosen.anchors_from]] if chosen.anchors_from else hierarchy["anchor_min_candidates"]
    queries = len(inputs.samples.queries)
    plans = [
        plan_of(cfg, chosen.loss or cfg.loss, labels.rank(label, graded), queries=queries) for label in lowest
    ]
    if not chosen.trained:
        plans = [replace(plans[0], steps=0)]
    key = hashlib.sha256(
        "\n".join((given.model_dump_json(), system, repr(plans), inputs.digest)).encode()
    ).hexdigest()
    folder = home / key[:12]
    params = {
        "system": system,
        **given.model_dump(mode="json"),
        "samples": int((inputs.samples.label >= 0).sum()),
        **{name: getattr(plans[0], name) for name in ("learning_rate", "steps", "check_every")},
    }
    with tracking_run.tracked(
        tracking if ranks.rank == 0 else None, name=f"train {system}", key=key, params=params
    ) as followed:
        logs = [followed.log, *([log] if log else [])]
        try:
            encoder, history, plan = fitted(
                cfg,
                inputs,
                plans,
                checkpoints=folder,
                log=lambda step, values: [each(step, values) for each in logs],
                ranks=ranks,
            )
            # The other ranks are done: it is trained by the first.
            wanted = cfg.generative and chosen.generative and ranks.rank == 0
            second = generated(cfg, encoder, inputs) if wanted else None
        except NothingToTrainOn as error:
            raise InputError(samples / "samples", str(error)) from error
        except TrainingError as error:
            raise ConfigError(f"train {system}: {error}") from error
        plan = replace(plan, anchor_min=sorted({*graded.values()})[plan.anchor_min - 1])
        followed.log(history["best_step"], _outcome(history, plan))
    # A system of no step sees none, and the pairwise loss counts in passes.
    by_steps = chosen.trained and plan.loss != systems.PAIRWISE
    notes = [followed.problem, _unseen(queries, plan, cfg) if by_steps else "", _asked(inputs)]
    if ranks.rank > 0:
        return _report(inputs, plan, history, notes)
    with artifacts.replacing(out) as new:
        (new / "encoder").mkdir()
        encoder.save(new / "encoder", system=system)
        used = {"anchor_min": plan.anchor_min, "loss": plan.loss if chosen.trained else None}
        facts = {"system": system, "hierarchy": used, "queries": queries, **history}
        if second is not None:
            second.model.save(new / generative.FOLDER, inputs.valid.texts)
            facts["generative"] = {"steps": second.steps, "loss": second.loss}
        artifacts.write_json(new / FACTS, facts)
    for done in filter(None, (folder, inputs.samples.home)):
        shutil.rmtree(done, ignore_errors=True)
    return _report(inputs, plan, history, notes)


def fitted(
    cfg: TrainConfig,
    inputs: Inputs,
    plans: list[train.Plan],
    *,
    checkpoints: Path,
    log: train.Log,
    ranks: Ranks = ALONE,
) -> tuple[encoders.Encoder, dict, train.Plan]:
    """Encoder, history and plan: of no step, of the pairwise loss, or the best of ours."""

    def make() -> encoders.Encoder:
        encoder = encoder_of(cfg, inputs.corpus)
        if encoder.device.type == "cpu":
            _fits(encoder, cfg.base)
        return encoder

    samples, valid, plan = inputs.samples, inputs.valid, plans[0]
    if plan.steps == 0:  # a tower that was cut and not trained since would be no measure
        encoder = encoder_of(cfg.model_copy(update={"query_layers": None}), inputs.corpus)
        return encoder, train.untouched(encoder, valid, ranks), plan
    if plan.loss == systems.PAIRWISE:
        usual = base_model.learning_rate(encoders.source_of(cfg.base))
        other = (
            usual == base_model.SHALLOW_RATE or cfg.lora_rank is not None
        )  # than the library's is meant for
        rate = cfg.mnrl_learning_rate or (plan.learning_rate if other else mnrl.LEARNING_RATE)
        size = cfg.batch_queries
        paired = mnrl.plan_of(samples, plan, size=size, epochs=cfg.mnrl_epochs, learning_rate=rate)
        if cfg.mnrl == "library":
            return *mnrl.fit_by_library(make, samples, valid, paired, size=size), plan
        done = mnrl.fit(
            make, samples, valid, paired, size=size, checkpoints=checkpoints, log=log, ranks=ranks
        )
        return *done, plan
    checked, in_part = valid, bool(valid.queries) and len(valid.texts) > cfg.check_documents
    if in_part:
        checked = valid.sampled(make(), most=cfg.check_documents, seed=cfg.seed, ranks=ranks)
    encoder, history, plan = train.best(
        make,
        samples,
        checked,
        plans,
        sizes_of(cfg),
        probe_steps=cfg.probe_steps,
        probe_seeds=cfg.probe_seeds,
        checkpoints=checkpoints,
        log=log,
        ranks=ranks,
        teacher=teacher_of(cfg, inputs),
    )
    if in_part:
        history["whole_recall"] = valid.recall(encoder, ranks=ranks)
    return encoder, history, plan


def _fits(encoder: encoders.Encoder, base: str) -> None:
    """An InputError where weights, gradients and both moments of AdamW are more than there is room for."""
    every, learnt = (
        sum(p.numel() for p in encoder.parameters() if p.requires_grad or not only) for only in (False, True)
    )
    what = f"{every / 1e6:,.0f} M weights, {learnt / 1e6:,.0f} M of them trained"
    memory.refuse(f"train.base {base}", what, 4 * (every + 3 * learnt))


def generated(cfg: TrainConfig, encoder: encoders.Encoder, inputs: Inputs) -> generative.Trained:
    """The second retriever, on the batches that the dense encoder had; only positives teach it."""
    lowest = inputs.samples.positive_min
    batches = Batches(inputs.samples, anchor_min=lowest, seed=cfg.seed, **sizes_of(cfg).drawn())
    return generative.fit(encoder, batches, inputs.valid.texts, seed=cfg.seed)


def _outcome(history: dict, plan: train.Plan) -> dict[str, float]:
    best = {"best_valid_recall_at_100": history["best_recall"]} if history["best_recall"] is not None else {}
    return {"best_step": history["best_step"], "anchor_min": plan.anchor_min, **best}


def _unseen(queries: int, plan: train.Plan, cfg: TrainConfig) -> str:
    """What the length of training keeps from being learnt from, or "" where every query has its turn."""
    share = plan.steps * cfg.batch_queries / queries
    return (
        f"train: {plan.steps} steps of {cfg.batch_queries} queries see {share:.0%} of {queries:,} queries; "
        "train.steps or train.batch_queries would show it more"
        if share < 1
        else ""
    )


def _asked(inputs: Inputs) -> str:
    """Of how many samples a training that learns from θ has one, or "" where it does not."""
    if (theta := inputs.samples.theta) is None:
        return ""
    own = theta[inputs.samples.label >= 0]
    return f"train: the teacher θ was asked about {int((~np.isnan(own)).sum()):,} of {len(own):,} samples"


def _report(inputs: Inputs, plan: train.Plan, history: dict, remarks: list[str]) -> StageReport:
    numbers: dict[str, float] = {
        "pairs": int((inputs.samples.label >= 0).sum()),
        "masked_pairs": int((inputs.samples.label < 0).sum()),
        "queries": len(inputs.samples.queries),
        "anchor_min": plan.anchor_min,
        "best_step": history["best_step"],
        "encodes": history["encodes"],
    }
    notes = [note for note in remarks if note]
    if (probes := history.get("probes")) and not probes["told"]:
        notes.append(
            f"hierarchy: cannot tell{_gap(probes)}; anchors >= {plan.anchor_min}, the safe one, is taken"
        )
    if (choice := history.get("choice")) and not choice["told"] and choice["difference"] is not None:
        notes.append(f"length: cannot tell the best check from the last{_gap(choice)}; the last is kept")
    if (whole := history.get("whole_recall")) is not None:
        numbers["whole_valid_recall_at_100"] = whole
        notes.append(
            f"validation: checks ranked a sample of the catalogue; recall@100 of the kept encoder is "
            f"{history['best_recall']:.3f} there and {whole:.3f} on all of it"
        )
    if history["best_recall"] is None:
        notes.append("no reformulation on the last training day: the last step is kept")
    else:
        numbers["valid_recall_at_100"] = history["best_recall"]
        if (untrained := history["checks"][0]["valid_recall_at_100"]) is not None:
            numbers["untrained_recall_at_100"] = untrained
    return StageReport(numbers=numbers, notes=tuple(notes))


def _gap(choice: dict) -> str:
    """The difference with its interval, in points, where there is one."""
    if choice["difference"] is None:
        return ""
    gap, low, high = (100 * choice[name] for name in ("difference", "low", "high"))
    return f" ({gap:+.1f} [{low:.1f}, {high:.1f}] points on validation)"


def plan_of(cfg: TrainConfig, loss: train.AnyLoss, anchor_min: int, *, queries: int = 0) -> train.Plan:
    """The settings of training as plain numbers; what they leave open is taken from the base, and from how
    many queries there are.
    """
    passes = round(cfg.epochs * queries / cfg.batch_queries)
    steps = cfg.steps or min(max(passes, LEAST_STEPS), MOST_STEPS)
    usual = base_model.learning_rate(encoders.source_of(cfg.base)) * (
        1 if cfg.lora_rank is None else finetuning.ADAPTERS_RATE
    )
    settings = cfg.model_dump() | {
        "steps": steps,
        "check_every": cfg.check_every or max(50, steps // 20),
        "learning_rate": cfg.learning_rate or usual,
    }
    shared = {name: settings[name] for name in train.Plan.__dataclass_fields__ if name in settings}
    return train.Plan(**{**shared, "loss": loss, "anchor_min": int(anchor_min), "horizon": steps})


def sizes_of(cfg: TrainConfig) -> train.Sizes:
    """What the config says of a batch."""
    return train.Sizes(
        queries=cfg.batch_queries,
        positives=cfg.positives,
        lower=cfg.lower,
        hard_share=cfg.hard_share,
        hard_negatives=cfg.hard_negatives,
        hard_margin=cfg.hard_margin,
        hard_refresh=cfg.hard_refresh,
    )


def weights_of(cfg: TrainConfig) -> Weights:
    """What the config says of how much a positive counts."""
    return Weights(
        kinds=cfg.weigh, half_life_days=cfg.half_life_days, bring_theta=cfg.teacher == teachers.THETA
    )


def teacher_of(cfg: TrainConfig, inputs: Inputs) -> teachers.Teacher | None:
    """The teacher that the config names, for these samples."""
    if cfg.teacher is None:
        return None
    if cfg.teacher == teachers.THETA:
        return teachers.of_theta(inputs.samples)
    encoder = encoders.from_base(cfg.teacher, inputs.corpus, max_tokens=cfg.max_tokens, seed=cfg.seed)
    return teachers.of_encoder(encoder, inputs.samples)


def encoder_of(cfg: TrainConfig, corpus: Sequence[str]) -> encoders.Encoder:
    """An untrained encoder as the settings say; `corpus` makes the tokenizer of `small`."""
    encoder = encoders.from_base(
        cfg.base,
        corpus,
        pooling=cfg.pooling,
        max_tokens=cfg.max_tokens,
        shared=cfg.shared_towers,
        seed=cfg.seed,
        temperature=cfg.temperature,
        attention=cfg.attn_implementation,
        query_prompt=cfg.query_prompt,
        document_prompt=cfg.document_prompt,
    ).to(accelerator.device())
    if cfg.query_layers is not None:
        finetuning.shorten(encoder, layers=cfg.query_layers)
    if cfg.gradient_checkpointing:
        encoder.save_memory()
    if cfg.lora_rank is not None:
        finetuning.adapt(
            encoder, rank=cfg.lora_rank, alpha=cfg.lora_alpha or 2.0 * cfg.lora_rank, seed=cfg.seed
        )
    if cfg.frozen_layers is not None:
        finetuning.freeze(encoder, layers=cfg.frozen_layers)
    return encoder
