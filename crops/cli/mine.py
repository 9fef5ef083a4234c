"""Verbs from logs to graded samples: augment, knowledge, theta, score, discriminate, label."""

import time
from pathlib import Path

import click

from crops.cli.support import EXISTING, config_option, out_option, show, unread
from crops.config.all import Config
from crops.config.base import ENGINES
from crops.stages.base import Shard

LOGS = click.option(
    "--logs", type=EXISTING, required=True, help="The accepted tables: what `crops validate` wrote."
)
CANDIDATES = click.option("--candidates", type=EXISTING, required=True, help="What `crops augment` wrote.")
TRUTH = click.option(
    "--truth",
    type=EXISTING,
    default=None,
    help="Folder with the table relevance, where somebody knows it: only reported beside the "
    "estimates, never learnt from.",
)
SHARD = click.option(
    "--shard",
    default="0/1",
    show_default=True,
    metavar="I/N",
    help="Only this part of the queries, for several machines.",
)


@click.command()
@LOGS
@out_option
@click.option("--engine", type=click.Choice(ENGINES), default=None, help="Default: the config's.")
@config_option
def augment(logs: Path, out: Path, engine: str | None, config: Config) -> None:
    """Mine candidates from clicks, reformulations, the feed and the engine's stages; write documents and test
    sets.

    No model runs here: similarity and relevance thresholds are applied by `crops discriminate`.
    """
    from crops.stages.logs import augment as stage

    started_s = time.monotonic()
    show("augment", started_s, stage.run(logs, out, config.section("augment"), engine=engine), out)


@click.command()
@unread("--logs")
@CANDIDATES
@out_option
@click.option(
    "--llm", default=None, help="OpenAI-compatible URL, or `local`: the small real LLM (extra `llm`)."
)
@SHARD
@config_option
def knowledge(candidates: Path, out: Path, llm: str | None, shard: str, config: Config) -> None:
    """Ask an LLM, one shot, for descriptions of other videos that would answer the query.

    Answers are cached by content: started again, it asks nothing twice. Shared by four machines, each says
    its part (--shard 0/4 … 3/4) and has an --out of its own; `crops discriminate` takes all of them.
    """
    from crops.stages.logs import knowledge as stage

    started_s = time.monotonic()
    part = Shard.parse(shard)
    show(
        "knowledge",
        started_s,
        stage.run(candidates, out, config.section("knowledge"), llm=llm, shard=part),
        out,
    )


@click.command()
@LOGS
@CANDIDATES
@out_option
@config_option
def theta(logs: Path, candidates: Path, out: Path, config: Config) -> None:
    """Train the discriminator θ on the log's own judgements and calibrate it; the first half of `crops
    discriminate`.
    """
    from crops.stages.learn import theta as stage

    started_s = time.monotonic()
    show("theta", started_s, stage.run(logs, candidates, out, config.section("discriminate")), out)


@click.command()
@click.option("--theta", "judge", type=EXISTING, required=True, help="What `crops theta` wrote.")
@CANDIDATES
@out_option
@SHARD
def score(judge: Path, candidates: Path, out: Path, shard: str) -> None:
    """Score the pairs that θ gates, or on each of several machines a part of them (--shard 0/4 … 3/4, each
    with an --out of its own); `crops discriminate` takes all of them.
    """
    from crops.stages.learn import score as stage

    started_s = time.monotonic()
    show("score", started_s, stage.run(judge, candidates, out, shard=Shard.parse(shard)), out)


@click.command()
@LOGS
@CANDIDATES
@out_option
@click.option(
    "--theta", "judge", type=EXISTING, default=None, help="What `crops theta` wrote. Default: trained now."
)
@click.option(
    "--scores",
    type=EXISTING,
    multiple=True,
    help="What `crops score` wrote; repeat it for each shard. Default: scored now.",
)
@click.option(
    "--knowledge",
    type=EXISTING,
    multiple=True,
    help="What `crops knowledge` wrote; repeat it for each shard.",
)
@click.option(
    "--champion",
    type=EXISTING,
    default=None,
    help="The champion release: its encoder measures query similarity.",
)
@TRUTH
@config_option
def discriminate(
    logs: Path,
    candidates: Path,
    out: Path,
    judge: Path | None,
    scores: tuple[Path, ...],
    knowledge: tuple[Path, ...],
    champion: Path | None,
    truth: Path | None,
    config: Config,
) -> None:
    """Train and calibrate the discriminator; score all pairs and decide which are kept."""
    from crops.stages.learn import discriminate as stage

    started_s = time.monotonic()
    report = stage.whole(
        logs,
        candidates,
        out,
        config.section("discriminate"),
        theta=judge,
        scores=scores,
        knowledge=knowledge,
        champion=champion,
        truth=truth,
    )
    show("discriminate", started_s, report, out)


@click.command()
@click.option("--scored", type=EXISTING, required=True, help="What `crops discriminate` wrote.")
@out_option
@TRUTH
@click.option(
    "--judged",
    type=EXISTING,
    default=None,
    help="What `crops judge read` wrote: the ladder believes it before θ.",
)
@config_option
def label(scored: Path, out: Path, truth: Path | None, judged: Path | None, config: Config) -> None:
    """Grade every sample (5 reformulation .. 1 filtered), measure the ladder and choose the hierarchy."""
    from crops.stages.learn import label as stage

    started_s = time.monotonic()
    show("label", started_s, stage.run(scored, out, config.section("label"), truth=truth, judged=judged), out)
