"""Verbs from samples to a measured encoder: train, export, index, evaluate."""

import time
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from crops.cli.mine import TRUTH
from crops.cli.support import FOLDER, config_option, folder, shared_out_option, show, unread, verb
from crops.config.all import Config
from crops.errors import InputError
from crops.evaluation import claims
from crops.retriever import systems
from crops.stages.base import StageReport

DOCUMENTS = folder("--documents", "What `crops augment` wrote.")


@verb
@folder("--samples", "What `crops label` wrote.")
@DOCUMENTS
@click.option(
    "--system",
    type=click.Choice(tuple(systems.SYSTEMS)),
    default=systems.CHALLENGER,
    show_default=True,
    help="base: no step; clicks: InfoNCE; clicks_mnrl: as sentence-transformers does; crops: the hierarchy "
    "chosen from the log; crops_paper: anchors >= 1.",
)
@click.option(
    "--checkpoints",
    type=FOLDER,
    default=None,
    help="Where to keep the state to resume from. Default: beside --out.",
)
@click.option(
    "--tracking",
    default=None,
    metavar="URI",
    help="MLflow tracking URI that gets the curves while it trains.",
)
def train(samples: Path, documents: Path, out: Path, config: Config, **given: Any) -> StageReport:
    """Train one system of the dual encoder; keeps its best checkpoint on the last training day's
    reformulations.
    """
    from crops.stages.learn import train as stage

    return stage.run(samples, documents, out, config.section("train"), **given)


@verb
@folder("--encoder", "What `crops train` wrote.")
@folder("--documents", "What `crops augment` wrote; float16 and int8 are tried on its queries.", default=None)
@folder("--theta", "What `crops theta` wrote; for export.reranker.", default=None)
def export(
    encoder: Path, documents: Path | None, theta: Path | None, out: Path, config: Config
) -> StageReport:
    """Write the query encoder as ONNX with its tokenizer, checked against torch."""
    from crops.stages.release import export as stage

    return stage.run(encoder, out, config.section("export"), documents=documents, theta=theta)


@verb
@folder("--export", "What `crops export` wrote.")
@DOCUMENTS
def index(export: Path, documents: Path, out: Path, config: Config) -> StageReport:
    """Encode the catalogue and build the FAISS index, checked against exact search."""
    from crops.stages.release import index as stage

    return stage.run(export, documents, out, config.section("index"))


def _systems(_ctx: click.Context, _param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Path]:
    folders = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not Path(path).is_dir():
            raise InputError(
                "--system", f"{pair!r} is not NAME=FOLDER with a folder that `crops train` wrote"
            )
        folders[name] = Path(path)
    return folders


@verb
@folder("--documents", "What `crops augment` wrote.", default=None)
@folder("--tests", "What `crops discriminate` wrote (the gated test set).", default=None)
@folder("--beir", "A test collection in BEIR's form, in place of --documents and --tests.", default=None)
@folder("--release", "With --beir: a release, or what `crops export` wrote; else BM25 alone.", default=None)
@click.option("--split", default="test", show_default=True, help="With --beir: which qrels.")
@click.option(
    "--system",
    "systems",
    multiple=True,
    callback=_systems,
    metavar="NAME=DIR",
    help="A trained system; repeat it.",
)
@click.option(
    "--write-beir",
    is_flag=True,
    help="Also write test sets and rankings as a BEIR folder with TREC's qrels and runs, into OUT/beir.",
)
@unread("--logs")
@folder("--champion", "Folder of the champion release.", default=None)
@TRUTH
def evaluate(
    documents: Path | None,
    tests: Path | None,
    beir: Path | None,
    release: Path | None,
    split: str,
    write_beir: bool,
    out: Path,
    config: Config,
    **given: Any,
) -> StageReport:
    """Recall, nDCG and paired bootstrap intervals of BM25, the trained systems and the champion on all test
    sets; or, with --beir, of BM25 and a release on a collection of others, with TREC run files.
    """
    if beir is not None:
        from crops.stages.learn import beir as collection

        return collection.run(beir, out, release=release, split=split)
    if documents is None or tests is None:
        raise click.UsageError("give --documents and --tests, or --beir")
    from crops.stages.learn import evaluate as stage

    if write_beir:
        config = config.with_value("evaluate", "write_beir", True)
    return stage.run(documents, tests, out, config.section("evaluate"), **given)


def _list(context: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Every table with its rows and what each changes."""
    if not wanted:
        return
    from crops.retriever.ablations import variants

    rows = variants(None)
    width = max(map(len, rows))
    for name, table in claims.tables().items():
        click.echo(f"{name}: {table.title}")
        for row in table.rows:
            click.echo(f"  {row:<{width}}  {rows[row].says}")
    context.exit()


@click.command()
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="Print the tables and their rows, and end.",
)
@folder("--logs", "Your tables, or what `crops world` or `crops import` wrote.")
@shared_out_option("Folder for tables, page and cache.")
@click.option(
    "--llm",
    default=None,
    help="URL of an OpenAI-compatible LLM; `world`: the simulated world's; `local`: a small one.",
)
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice([*claims.TABLES, claims.REGISTERED]),
    help="Only this table; repeat it. registered: each perspective that a package brought, left out. "
    "Default: all that there are.",
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
    report = stage.run(logs, out, config, tables=tables, llm=llm, say=_line)
    show("ablate", started_s, report, out)


def _line(name: str, seconds: float, report: StageReport) -> None:
    numbers = "  ".join(
        f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v:,}" for k, v in list(report.numbers.items())[:4]
    )
    tqdm.write(f"{name:<32} {seconds:7.1f} s  {numbers}")
