"""Verbs of an experiment: its readout, and the rollout that decides from it."""

import time
from pathlib import Path

import click

from crops.cli.support import EXISTING, config_option, out_option, show
from crops.config.all import Config
from crops.config.base import ENGINES


@click.command()
@click.option(
    "--events",
    type=EXISTING,
    required=True,
    help="Tables searches and results, with arm: what `crops compact` wrote.",
)
@click.option(
    "--videos", type=EXISTING, default=None, help="Folder of the table videos (durations). Default: --events."
)
@out_option
@click.option(
    "--metric",
    type=click.Choice(["ctr", "lpr", "rqr"]),
    default=None,
    help="Primary metric. Default: the config's.",
)
@click.option(
    "--planned-lift",
    type=float,
    default=None,
    help="Relative effect to plan for, say 0.01. Default: the config's.",
)
@click.option(
    "--gateway",
    default=None,
    metavar="URL",
    help="A gateway that served the experiment: refuse to read RQR by another window than it counts by.",
)
@click.option(
    "--rollout",
    default=None,
    metavar="DIR",
    envvar="CROPS_ROLLOUT",
    show_envvar=True,
    help="State of `crops rollout`, a folder or an s3:// URL: read from the start of that rollout on.",
)
@click.option("--engine", type=click.Choice(ENGINES), default=None, help="Default: the config's.")
@config_option
def experiment(
    events: Path,
    videos: Path | None,
    out: Path,
    metric: str | None,
    planned_lift: float | None,
    gateway: str | None,
    rollout: str | None,
    engine: str | None,
    config: Config,
) -> None:
    """The A/B readout: lifts with intervals, sample ratio, segments, power, and what they mean.

    Writes readout.json and readout.html. Run again it computes only the days that changed.
    """
    from crops.stages.trial import experiment as stage
    from crops.stages.trial.rollout import began

    started_s = time.monotonic()
    section = config.section("experiment")
    options = {"primary": metric, "planned_lift": planned_lift, "since": began(rollout) if rollout else None}
    changed = section.model_dump() | {key: value for key, value in options.items() if value is not None}
    cfg = type(section).parse(changed, source="command line")
    if gateway is not None:
        stage.check_window(gateway, cfg)
    show("experiment", started_s, stage.run(events, out, cfg, videos=videos, engine=engine), out)
