"""The training loop: step, check on validation queries, keep the best, resume to the same curve."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crops import progress
from crops.errors import ConfigError
from crops.retriever import checkpoint, step
from crops.retriever.batch import AnchorBatches, Batches, Pairs, anchors_per_step
from crops.retriever.encoder import Encoder
from crops.retriever.focus import focus
from crops.retriever.loss import AnyLoss
from crops.retriever.ranks import ALONE, Ranks
from crops.retriever.step import Plan
from crops.retriever.teacher import Teacher
from crops.retriever.tokens import tokenized
from crops.retriever.validation import Validation

__all__ = ["AnyLoss", "Log", "Plan", "Sizes", "Validation", "best", "fit"]

ONE_ANCHOR = "one_anchor"  # InfoNCE that takes each anchor apart
Log = Callable[[int, dict[str, float]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a batch draws: queries, positives per query, samples per lower label and query.

    hard_share: share of the queries' turns that go by how low the untrained encoder ranks their positives.
    hard_negatives: texts that it ranks high for a query, with `hard_margin`; see `crops.retriever.focus`.
    hard_refresh: both are asked of the encoder in training anew, at every check (arXiv 2007.00808).
    """

    queries: int
    positives: int
    lower: int
    hard_share: float = 0.0
    hard_negatives: int = 0
    hard_margin: float = 0.95
    hard_refresh: bool = False

    def drawn(self) -> dict[str, Any]:
        """What `Batches` takes of it."""
        return {"size": self.queries, "positives": self.positives, "lower": self.lower}


def best(
    make: Callable[[], Encoder],
    samples: Pairs,
    valid: Validation,
    plans: Sequence[Plan],
    sizes: Sizes,
    *,
    probe_steps: int,
    probe_seeds: int = 1,
    checkpoints: Path,
    log: Log | None = None,
    ranks: Ranks = ALONE,
    teacher: Teacher | None = None,
) -> tuple[Encoder, dict[str, Any], Plan]:
    """Trains by the plan that is best on `valid`: each plan is probed for `probe_steps`, and training goes on
    with the best.

    The first plan is the safe one: another is taken only where `probe_seeds` probes of each can tell them
    apart (history["probes"]). Returns encoder, history, plan.
    """

    def trained(plan: Plan) -> tuple[Encoder, dict[str, Any]]:
        encoder = make()
        kind = AnchorBatches if plan.loss == ONE_ANCHOR else Batches
        draws = {} if plan.loss == ONE_ANCHOR else focused(encoder, samples, sizes, ranks)
        batches = kind(samples, anchor_min=plan.anchor_min, seed=plan.seed, **sizes.drawn(), **draws)
        # Probes of several plans would overwrite one another's curve: each has its own names.
        suffix = f".anchors_{plan.anchor_min}.{plan.seed}" if len(plans) > 1 else ""

        def named(step: int, values: dict[str, float]) -> None:
            if log:
                log(step, {f"{name}{suffix}": value for name, value in values.items()})

        folder = checkpoints / f"anchors-{plan.anchor_min}-{plan.seed}"
        plan = one_by_one(plan, samples, sizes) if plan.loss == ONE_ANCHOR else plan
        history = fit(
            encoder,
            batches,
            valid,
            plan,
            checkpoints=folder,
            log=named,
            ranks=ranks,
            teacher=teacher,
            aim=(lambda: focused(encoder, samples, sizes, ranks)) if draws and sizes.hard_refresh else None,
        )
        return encoder, history

    chosen, choice = plans[0], None
    if len(plans) > 1 and valid.queries:

        def recalls(plan: Plan, seed: int) -> list[float]:
            short = replace(plan, steps=min(probe_steps, plan.steps), seed=plan.seed + seed)
            encoder = trained(short)[0]
            return valid.recalls(encoder, ranks=ranks).tolist()

        probes = [[recalls(plan, seed) for seed in range(probe_seeds)] for plan in plans]
        choice = valid.choose(probes, safe=0)
        chosen = plans[choice.taken]
    encoder, history = trained(chosen)
    return encoder, history | ({"probes": asdict(choice)} if choice else {}), chosen


def focused(encoder: Encoder, samples: Pairs, sizes: Sizes, ranks: Ranks) -> dict[str, Any]:
    """What Batches is told of the encoder's faults; the first rank's word, as no rank may draw another
    batch.
    """
    if not sizes.hard_share and not sizes.hard_negatives:
        return {}
    wrong = ranks.from_first(
        lambda: focus(encoder, samples, rivals=sizes.hard_negatives, margin=sizes.hard_margin)
    )
    lost = wrong.lost / wrong.lost.mean() if wrong.lost.any() else np.ones(len(wrong.lost))
    turns = 1 - sizes.hard_share + sizes.hard_share * lost
    return {"turns": turns if sizes.hard_share else None, "rivals": wrong.rivals}


def untouched(encoder: Encoder, valid: Validation, ranks: Ranks = ALONE) -> dict[str, Any]:
    """The history, as `fit` returns it, of an encoder that takes no step."""
    recall = valid.recall(encoder, ranks=ranks)
    check = {"step": 0, "loss": None, "tau": float(encoder.log_tau.detach().exp()), "lr": 0.0}
    return {
        "checks": [{**check, "valid_recall_at_100": recall}],
        "best_step": 0,
        "best_recall": recall,
        "encodes": 0,
    }


def one_by_one(plan: Plan, samples: Pairs, sizes: Sizes) -> Plan:
    """The plan as InfoNCE on the labels 1 and 0 of AnchorBatches, with so many steps that as many anchors are
    seen as the plan's own steps would see.
    """
    per_step = anchors_per_step(samples, anchor_min=plan.anchor_min, **sizes.drawn())
    times = max(1.0, per_step / sizes.queries)
    longer = {name: round(times * getattr(plan, name)) for name in ("steps", "horizon", "check_every")}
    return replace(plan, loss="info_nce", anchor_min=1, **longer)


def fit(
    encoder: Encoder,
    batches: Batches,
    valid: Validation,
    plan: Plan,
    *,
    checkpoints: Path,
    log: Log | None = None,
    ranks: Ranks = ALONE,
    teacher: Teacher | None = None,
    aim: Callable[[], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Trains `encoder` in place and leaves it at the check that is kept: the best one where validation can
    tell it from the last, else the last; resumes where a killed run left `checkpoints`.

    Returns {"checks": [{step, loss, tau, lr, valid_recall_at_100}], "best_step", "best_recall" (of the check
    that is kept), "choice" (what told it from the last one), "encodes", "horizon"}. loss: mean since the last
    check, null before the first step: the untrained encoder is a candidate as well. recall: null without
    validation. encodes: texts that went through the encoder in training, all steps. Of several ranks the
    first checks, saves and logs. RanksDiffer if they differ in plan, samples, batch or checkpoint.

    teacher: whose scores are learnt beside the labels. aim: called after every check, where the encoder is
    wrong now (`Batches.aim`).
    """
    if wide := [w for w in plan.widths if w >= encoder.width]:
        raise ConfigError(
            f"train.widths holds {wide[0]}, but the base's vectors have {encoder.width} numbers"
        )
    encoder.widths = plan.widths
    optimizer = step.optimizer_of(encoder, plan)
    resumed = checkpoint.resume(encoder, optimizer, checkpoints)
    samples = batches.samples
    ranks.check_same(
        {
            "batch_queries": batches.size,
            "plan": plan,
            "positives, lower": (batches.positives, batches.lower),
            "samples": (
                len(samples.query),
                len(samples.queries),
                len(samples.texts),
                int(samples.label.sum()),
            ),
            "checkpoint at step": resumed and resumed["step"],
        }
    )
    ranks.copy_weights(encoder)
    fresh = {"step": 0, "checks": [], "best_step": 0, "best_recall": None, "losses": [], "encodes": 0}
    fresh["recalls"] = []  # per check those of the queries
    state: dict[str, Any] = resumed or fresh

    def check() -> dict[str, Any]:
        """Adds a check to `state`, the same on every rank, and has it saved by the first."""
        recalls = valid.recalls(encoder, ranks=ranks).round(4).tolist() if valid.queries else []
        recall = float(np.mean(recalls)) if recalls else None
        state["recalls"].append(recalls)
        entry = {
            "step": state["step"],
            "loss": float(np.mean(state["losses"])) if state["losses"] else None,
            "tau": float(encoder.log_tau.detach().exp()),
            "lr": plan.learning_rate * step.rate(max(0, state["step"] - 1), plan),
            "valid_recall_at_100": recall,
        }
        state["checks"].append(entry)
        state["losses"] = []
        if recall is None or state["best_recall"] is None or recall > state["best_recall"]:
            state["best_recall"], state["best_step"] = recall, state["step"]
        ranks.from_first(lambda: checkpoint.save(encoder, optimizer, checkpoints, state))
        return entry

    if resumed is None:
        check()
    elif aim is not None and state["step"]:
        batches.aim(**aim())
    query_ids = tokenized(encoder, samples.queries, "query", samples.home)
    text_ids = tokenized(encoder, samples.texts, "document", samples.home)
    with progress.bar(
        total=plan.steps, initial=state["step"], desc="train", unit="step", disable=ranks.rank > 0
    ) as bar:
        while (number := state["step"]) < plan.steps and number - state[
            "best_step"
        ] < plan.patience * plan.check_every:
            batch = batches.at(number)
            ids = [query_ids[i] for i in batch.queries], [text_ids[i] for i in batch.texts]
            targets = None if teacher is None else teacher(batch)
            loss = step.take(
                encoder, optimizer, ids, batch.labels, plan, step=number, ranks=ranks, targets=targets
            )
            state["losses"].append(loss)
            state["step"] += 1
            state["encodes"] += len(batch.queries) + len(batch.texts)
            bar.update()
            if state["step"] % plan.check_every == 0 or state["step"] == plan.steps:
                entry = check()
                bar.set_postfix(loss=entry["loss"], valid=entry["valid_recall_at_100"])
                if log and ranks.rank == 0:
                    log(state["step"], {k: v for k, v in entry.items() if k != "step" and v is not None})
                if aim is not None:
                    batches.aim(**aim())
    last = len(state["checks"]) - 1
    choice = valid.choose([[recalls] for recalls in state["recalls"]], safe=last) if valid.queries else None
    if choice is not None and choice.told:
        checkpoint.load_best(encoder, checkpoints)
    kept = state["checks"][choice.taken if choice else last]
    ranks.from_first(lambda: None)  # all have read before the first may remove the folder
    return {
        "checks": state["checks"],
        "best_step": kept["step"],
        "best_recall": kept["valid_recall_at_100"],
        "choice": None if choice is None else asdict(choice),
        "encodes": state["encodes"],
        "horizon": plan.horizon,
    }
