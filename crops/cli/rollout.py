"""The verb rollout: canary and A/B of a challenger."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from crops.cli.support import config_option, registry_option
from crops.config.all import Config
from crops.errors import CropsError
from crops.services.registry import Registry, existing

FILE = click.Path(path_type=Path, dir_okay=False)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option(
            "--state",
            default="rollout",
            show_default=True,
            envvar="CROPS_ROLLOUT",
            show_envvar=True,
            metavar="DIR",
            help="State and audit trail: a folder or an s3:// URL, of which each controller sees the same.",
        ),
        click.option(
            "--prometheus",
            default="http://127.0.0.1:9090",
            show_default=True,
            envvar="CROPS_PROMETHEUS",
            show_envvar=True,
            help="Address of Prometheus.",
        ),
        registry_option,
        click.option(
            "--features",
            default=None,
            metavar="FILE",
            help="Features file of the gateways, a path or an s3:// URL. Default: STATE/features.json.",
        ),
        click.option(
            "--readout",
            type=FILE,
            default=None,
            envvar="CROPS_READOUT",
            show_envvar=True,
            help="readout.json of `crops experiment`, made anew beside.",
        ),
        config_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def rollout() -> None:
    """Canary, then A/B of the registry's challenger, by guardrails and readout; every move is written down
    with its reason.

    \b
    crops rollout start --name autumn --config rollout.yaml --readout exp/readout.json --follow
    crops rollout status
    crops rollout abort --reason "a better one is coming"

    The sections `rollout` (steps, guardrails, A/B) and `deploy` (manifest, Triton, gateways) of the config
    say how and where. Killed at any point, the same command or `crops rollout step` goes on.
    """


@rollout.command()
@_common
@click.option("--name", required=True, help="What readout, metrics and audit trail call the experiment.")
@click.option("--follow", is_flag=True, help="Stay and look every rollout.poll_s until it is over.")
def start(name: str, follow: bool, config: Config, **where: Any) -> None:
    """Begin with the first step of the canary."""
    from crops.stages.trial import follow as stage_of_all
    from crops.stages.trial import rollout as stage

    place, plan = _place(config, where)

    def seen(state: Any, verdict: Any) -> None:
        step = f"{state.step + 1}"
        click.echo(
            f"{time.strftime('%H:%M:%S')} {state.phase} {step}: {verdict.kind}: {verdict.reason}"
            if verdict
            else f"{state.experiment}: {state.treatment} against {state.control}, {step} of {len(plan.steps)}"
        )

    if follow:
        stage_of_all.until_over(place, plan, name=name, seen=seen)
    else:
        seen(stage.start(place, plan, name=name), None)


@rollout.command()
@_common
@click.option(
    "--follow",
    is_flag=True,
    help="Stay for good: a look every rollout.poll_s, whatever is started. For a cluster.",
)
def step(follow: bool, config: Config, **where: Any) -> None:
    """One look: measure, decide, act."""
    from crops.stages.trial import rollout as stage

    place, plan = _place(config, where)
    ended, shown = _listen() if follow else threading.Event(), ""
    while True:
        try:
            if follow and not stage.started(place):
                line = "no rollout was started yet"
            else:
                state, verdict = stage.step(place, plan)
                line = f"{state.phase} {state.step + 1}: {verdict.kind}: {verdict.reason}"
        # A service is away, a disk is full, a file cannot be read: the next look goes on.
        except (CropsError, OSError) as error:
            if not follow:
                raise
            line = str(error)
        if line != shown:
            click.echo(line if not follow else f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
            shown = line
        if not follow or ended.wait(plan.poll_s):
            return


def _listen() -> threading.Event:
    """Set by SIGTERM or Ctrl-C, so that a look in progress is finished."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    return ended


@rollout.command()
@_common
def status(config: Config, **where: Any) -> None:
    """Where it stands, and the last moves with their reasons. Changes nothing."""
    from crops.experiment import rollout as rules
    from crops.stages.trial import rollout as stage

    place, plan = _place(config, where)
    state = stage.load(place)
    click.echo(
        f"{state.experiment}: {state.phase}, step {state.step + 1} of {len(plan.steps)}, "
        f"coverage {rules.coverage(plan, state):.0%}"
    )
    click.echo(f"{state.treatment} against {state.control}")
    for line in stage.trail(place)[-10:]:
        click.echo(f"  {line}")


@rollout.command()
@_common
@click.option("--reason", required=True, help="Goes into the audit trail.")
def abort(reason: str, config: Config, **where: Any) -> None:
    """End it now: everybody gets the champion."""
    from crops.stages.trial import rollout as stage

    state = stage.abort(*_place(config, where), reason=reason)
    late = "" if state.phase == "aborted" else ", it had ended before: nothing is aborted"
    click.echo(f"{state.experiment}: {state.phase}{late}")


def _place(config: Config, where: dict[str, Any]) -> tuple[Any, Any]:
    """Where the rollout lives, and its plan."""
    from crops.stages.trial.rollout import place

    registry = Registry(existing(where.pop("registry")), config.section("register").name)
    place_of = place(where.pop("state"), config.section("deploy"), registry=registry, **where)
    return place_of, config.section("rollout")
