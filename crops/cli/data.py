"""Verbs that bring data in: world, world-llm, import, look, validate; and config, the settings."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from crops.cli.support import EXISTING, config_option, out_option, show
from crops.config.all import Config, commented
from crops.config.base import ENGINES
from crops.stages.base import StageReport
from crops.tables import artifacts


def _more_of(name: str, what: str) -> Callable[..., Any]:
    path = click.Path(path_type=Path, exists=True)
    return click.option(f"--{name}", type=path, default=None, help=f"table: file or folder of {what}.")


@click.command()
@out_option
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--scale",
    type=click.Choice(["tiny", "small", "medium", "large"]),
    default="small",
    show_default=True,
    help="Searches: about 3 k, 30 k, 300 k, 5 M.",
)
@click.option(
    "--incumbent",
    type=click.Choice(["lexical", "paths"]),
    default="paths",
    show_default=True,
    help="The engine that wrote the log: lexical only, or with a dense path beside.",
)
@click.option(
    "--videos-per-intent",
    type=click.IntRange(min=1),
    default=None,
    help="How crowded an intent is against the depth of the engine's pool.",
)
@click.option(
    "--language",
    type=click.Choice(["en", "zh"]),
    default="en",
    show_default=True,
    help="What people write: English, or Chinese without spaces.",
)
def world(
    out: Path, seed: int, scale: str, incumbent: str, videos_per_intent: int | None, language: str
) -> None:
    """Write the input tables of a simulated short-video platform.

    Searches, results, feed and videos as a real platform would log them, and truth/relevance, which training
    never reads. Everything measured on it is a simulation.
    """
    from crops.world import simulate

    started_s = time.monotonic()
    with artifacts.replacing(out) as folder:
        numbers = simulate.write(
            folder,
            scale=scale,
            seed=seed,
            incumbent=incumbent,
            videos_per_intent=videos_per_intent,
            language=language,
        )
    show("world", started_s, StageReport(numbers=numbers), out)


@click.command("world-llm")
@click.option("--world", "world_dir", type=EXISTING, required=True, help="Folder that `crops world` wrote.")
@click.option("--port", type=int, default=8900, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
def world_llm(world_dir: Path, port: int, host: str) -> None:
    """Serve the simulated world's LLM: an OpenAI-compatible endpoint until interrupted.

    It knows the world's language and answers badly in 4.2 % of cases, so what it adds to recall is an upper
    bound.
    """
    import uvicorn

    from crops.world import llm

    uvicorn.run(llm.app(world_dir), host=host, port=port, log_level="warning")


@click.command("import")
@click.argument("dataset", type=click.Choice(["table", "trec-session", "kuaisar", "qilin", "recflow"]))
@click.argument("src", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--map",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS,...",
    help="table: which column is which, as in query=q,user=uid,time=ts; repeat it.",
)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="OURS=VALUE,...",
    help="table: what stands where the file has nothing, as in clicked=true.",
)
@_more_of("results", "results, where they are not rows of SRC; they name searches by their id")
@_more_of("videos", "what can be found (videos, products, pages), with their texts")
@_more_of("feed", "what people looked at outside of the search")
@out_option
def import_(
    dataset: str,
    src: Path,
    out: Path,
    columns: tuple[str, ...],
    values: tuple[str, ...],
    **files: Path | None,
) -> None:
    """Convert a search log of any shape, or a public data set, to the tables.

    \b
    table         a search log as CSV, JSON lines or Parquet (a file, or a folder of them), by --map
    trec-session  sessiontrack2013.xml of the TREC 2013 Session track: searches, reformulations, clicks; no
                  feed
    kuaisar       the folder with src_inter.csv: searches and feed of the same people, words hashed
    qilin         the folder with the Parquet files: searches and feed in plain Chinese
    recflow       the folder with all_stage/: true stages of a recommender; no queries, no feed, no texts

    A shop's log, one row per shown product:

    \b
    crops import table shown.csv --videos products.csv --out logs \\
      --map query=q,user=uid,time=ts,video=sku,position=rank,clicked=click,caption=title

    Columns that are called as ours are found without --map; videos.caption=title is of one table alone, and
    watched:ms is a column of milliseconds. Times are told by themselves. docs/data/ has a page for each.
    """
    from crops.adapters.columns import ColumnMap
    from crops.stages.logs import import_log

    started_s = time.monotonic()
    more = {name: path for name, path in files.items() if path is not None}
    if dataset == "table":
        report = import_log.run_table(src, out, ColumnMap.parse(columns, values), more)
    elif columns or values or more:
        raise click.UsageError(
            f"--map, --set, --results, --videos and --feed are of `table`, not of {dataset}"
        )
    else:
        report = import_log.run(src, out, dataset=dataset)
    show("import", started_s, report, out)


@click.command()
@click.argument("logs", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@config_option
def look(logs: Path, as_json: bool, config: Config) -> None:
    """A first look at LOGS: tables and columns that are there and missing, days, searches, clicks, scripts;
    which perspectives can be mined and what each would need; whether the log is enough; the next command.

    Nothing is written, and nothing that `crops validate` would put into quarantine is an error. LOGS may be a
    CSV, JSON lines or Parquet file, or a folder of them, for `crops import table`.
    """
    from crops.report import first_look
    from crops.stages.logs import look as stage

    look = stage.run(logs, config.section("augment"), min_queries=config.section("gate").min_queries)
    if as_json:
        click.echo(json.dumps(look, ensure_ascii=False, indent=2))
        return
    for line in first_look.lines(look):
        click.echo(line)


@click.command()
@click.option(
    "--logs", type=EXISTING, required=True, help="Folder with searches/, results/, videos/, perhaps feed/."
)
@out_option
@click.option("--engine", type=click.Choice(ENGINES), default=None, help="Default: the config's.")
@config_option
def validate(logs: Path, out: Path, engine: str | None, config: Config) -> None:
    """Check the logs against the expectations and keep the rows that pass.

    Writes the accepted rows as the same tables, bad rows under quarantine/ with a reason, validation.json,
    and Data Docs to look at. Exit code 1 on a critical failure.
    """
    from crops.stages.logs import validate as stage

    started_s = time.monotonic()
    report = stage.run(logs, out, config.section("validate"), engine=engine)
    show("validate", started_s, report, out)
    bad = f"; bad rows with their reasons: {out / 'quarantine'}" if (out / "quarantine").exists() else ""
    click.echo(f"  look at: {out / 'data_docs' / 'index.html'}{bad}")
    if not artifacts.read_json(out / "validation.json")["success"]:
        sys.exit(1)


@click.command("config")
def config() -> None:
    """Print the default config as YAML: every key with what it does, its unit and where its default comes
    from.
    """
    for line in commented():
        click.echo(line)
