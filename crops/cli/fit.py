"""Verbs from samples to a measured encoder: train, export, index, evaluate."""

import time
from pathlib import Path

import click
from tqdm import tqdm

from crops.cli.mine import TRUTH
from crops.cli.support import EXISTING, config_option, out_option, show, unread
from crops.config.all import Config
from crops.errors import InputError
from crops.evaluation.claims import TABLES
from crops.retriever import systems
from crops.stages.base import StageReport

SYSTEMS = tuple(systems.SYSTEMS)
DOCUMENTS = click.option("--documents", type=EXISTING, required=True, help="What `crops augment` wrote.")


@click.command()
@click.option("--samples", type=EXISTING, required=True, help="What `crops label` wrote.")
@DOCUMENTS
@out_option
@click.option(
    "--system",
    type=click.Choice(SYSTEMS),
    default=systems.CHALLENGER,
    show_default=True,
    help="clicks: the baseline; crops: the hierarchy chosen from the log; crops_paper: anchors >= 1.",
)
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Where to keep the state to resume from. Default: beside --out.",
)
@click.option(
    "--tracking",
    default=None,
    metavar="URI",
    help="MLflow tracking URI that gets the curves while it trains.",
)
@config_option
def train(
    samples: Path,
    documents: Path,
    out: Path,
    system: str,
    checkpoints: Path | None,
    tracking: str | None,
    config: Config,
) -> None:
    """Train one system of the dual encoder; keeps its best checkpoint on the last training day's
    reformulations.
    """
    from crops.stages.learn import train as stage

    started_s = time.monotonic()
    section = config.section("train")
    report = stage.run(
        samples, documents, out, section, system=system, checkpoints=checkpoints, tracking=tracking
    )
    show(f"train {system}", started_s, report, out)


@click.command()
@click.option("--encoder", type=EXISTING, required=True, help="What `crops train` wrote.")
@out_option
@config_option
def export(encoder: Path, out: Path, config: Config) -> None:
    """Write the query encoder as ONNX with its tokenizer, checked against torch."""
    from crops.stages.release import export as stage

    started_s = time.monotonic()
    show("export", started_s, stage.run(encoder, out, config.section("export")), out)


@click.command()
@click.option("--export", "exported", type=EXISTING, required=True, help="What `crops export` wrote.")
@DOCUMENTS
@out_option
@config_option
def index(exported: Path, documents: Path, out: Path, config: Config) -> None:
    """Encode the catalogue and build the FAISS index, checked against exact search."""
    from crops.stages.release import index as stage

    started_s = time.monotonic()
    show("index", started_s, stage.run(exported, documents, out, config.section("index")), out)


def _systems(_ctx: click.Context, _param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Path]:
    systems = {}
    for pair in pairs:
        name, found, folder = pair.partition("=")
        if not found or not Path(folder).is_dir():
            raise InputError(
                "--system", f"{pair!r} is not NAME=FOLDER with a folder that `crops train` wrote"
            )
        systems[name] = Path(folder)
    return systems


@click.command()
@DOCUMENTS
@click.option(
    "--tests", type=EXISTING, required=True, help="What `crops discriminate` wrote (the gated test set)."
)
@out_option
@click.option(
    "--system",
    "systems",
    multiple=True,
    callback=_systems,
    metavar="NAME=DIR",
    help="A trained system; repeat it.",
)
@unread("--logs")
@click.option("--champion", type=EXISTING, default=None, help="Folder of the champion release.")
@TRUTH
@config_option
def evaluate(
    documents: Path,
    tests: Path,
    out: Path,
    systems: dict[str, Path],
    champion: Path | None,
    truth: Path | None,
    config: Config,
) -> None:
    """Recall, nDCG and paired bootstrap intervals of BM25, the trained systems and the champion on all test
    sets.
    """
    from crops.stages.learn import evaluate as stage

    started_s = time.monotonic()
    section = config.section("evaluate")
    report = stage.run(documents, tests, out, section, systems=systems, truth=truth, champion=champion)
    show("evaluate", started_s, report, out)


@click.command()
@click.option(
    "--logs", type=EXISTING, required=True, help="Your tables, or what `crops world` or `crops import` wrote."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for tables, page and cache.",
)
@click.option(
    "--llm",
    default=None,
    help="URL of an OpenAI-compatible LLM; `world`: the simulated world's; `local`: a small one.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(list(TABLES)),
    help="Only this table; repeat it. Default: all.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=None,
    help="Trainings per row. Default: the setting ablate.seeds.",
)
@config_option
def ablate(
    logs: Path, out: Path, llm: str | None, tables: tuple[str, ...], seeds: int | None, config: Config
) -> None:
    """The paper's tables 3 and 4 and its open questions, re-run on your log: ablation.html and ablation.json.

    Every row is trained over several seeds and compared with intervals, beside the paper's numbers. Rows
    share what they can; interrupted or killed, the same command goes on where it was.

    \b
    crops ablate --logs logs --out runs/ablate --table perspectives --table losses
    """
    from crops.stages.learn import ablate as stage

    started_s = time.monotonic()
    if seeds is not None:
        config = config.with_value("ablate", "seeds", seeds)
    report = stage.run(logs, out, config, tables=tables or tuple(TABLES), llm=llm, say=_line)
    show("ablate", started_s, report, out)


def _line(name: str, seconds: float, report: StageReport) -> None:
    numbers = "  ".join(
        f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v:,}" for k, v in list(report.numbers.items())[:4]
    )
    tqdm.write(f"{name:<32} {seconds:7.1f} s  {numbers}")
