"""The verb judge: ask people about a blinded sample, and read their grades back."""

import time
from pathlib import Path

import click

from crops.cli.support import EXISTING, config_option, out_option, show
from crops.config.all import Config


@click.group()
def judge() -> None:
    """Human judgement of what was mined and of what the systems find, as one blinded sample.

    \b
    crops judge export --scored DIR --documents DIR --metrics DIR --samples DIR --out ask
    # raters open ask/judge.html (or fill in ask/sheet.csv) and send their file back
    crops judge read --asked ask --sheet anna.csv --sheet ben.csv --out LOGS/judgements

    What was read back is used by `crops label --judged` (the candidates), by `crops evaluate --truth` (the
    pooled results, of which no system has learnt) and, where it lies in LOGS/judgements, by `crops run`.
    """


@judge.command()
@click.option("--scored", type=EXISTING, required=True, help="What `crops discriminate` wrote.")
@click.option("--documents", type=EXISTING, required=True, help="What `crops augment` wrote.")
@click.option(
    "--metrics",
    type=EXISTING,
    default=None,
    help="What `crops evaluate` wrote: asks about pooled results of all systems as well.",
)
@click.option(
    "--samples", type=EXISTING, default=None, help="What `crops label` wrote: its pairs leave the pool."
)
@out_option
@config_option
def export(
    scored: Path, documents: Path, metrics: Path | None, samples: Path | None, out: Path, config: Config
) -> None:
    """Draw pairs of every perspective, and of what the systems find for held-out queries, and write them
    without saying where they came from.

    Writes judge.html, sheet.csv and key.json; the key stays with you.
    """
    from crops.stages.learn import judge as stage

    started_s = time.monotonic()
    report = stage.export(scored, documents, out, config.section("judge"), metrics=metrics, samples=samples)
    show("judge export", started_s, report, out)


@judge.command()
@click.option("--asked", type=EXISTING, required=True, help="The folder that `crops judge export` wrote.")
@click.option(
    "--sheet",
    "sheets",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    required=True,
    help="A rater's CSV; repeat it for each rater.",
)
@out_option
def read(asked: Path, sheets: tuple[Path, ...], out: Path) -> None:
    """Read the raters' grades back: share of relevant pairs per perspective and threshold, and how far raters
    agree.
    """
    from crops.stages.learn import judge as stage

    started_s = time.monotonic()
    show("judge read", started_s, stage.read(asked, sheets, out), out)
