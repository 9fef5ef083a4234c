"""Verbs from logs to graded samples: augment, knowledge, theta, score, discriminate, label."""

from pathlib import Path
from typing import Any

import click

from crops.cli.support import folder, unread, verb
from crops.config.all import Config
from crops.config.base import ENGINES
from crops.stages.base import Shard, StageReport

LOGS = folder("--logs", "The accepted tables: what `crops validate` wrote.")
CANDIDATES = folder("--candidates", "What `crops augment` wrote.")
TRUTH = folder(
    "--truth",
    "Folder with the table relevance, if any: only reported beside the estimates, never learnt from.",
    default=None,
)
SHARD = click.option(
    "--shard",
    default="0/1",
    show_default=True,
    metavar="I/N",
    help="Only this part of the queries, for several machines.",
)


@verb
@LOGS
@click.option("--engine", type=click.Choice(ENGINES), default=None, help="Default: the config's.")
def augment(logs: Path, out: Path, engine: str | None, config: Config) -> StageReport:
    """Mine candidates from clicks, reformulations, the feed and the engine's stages; write documents and test
    sets.

    No model runs here: similarity and relevance thresholds are applied by `crops discriminate`.
    """
    from crops.stages.logs import augment as stage

    return stage.run(logs, out, config.section("augment"), engine=engine)


@verb
@unread("--logs")
@CANDIDATES
@click.option(
    "--llm", default=None, help="OpenAI-compatible URL, or `local`: the small real LLM (extra `llm`)."
)
@SHARD
def knowledge(candidates: Path, out: Path, llm: str | None, shard: str, config: Config) -> StageReport:
    """Ask an LLM, one shot, for descriptions of other videos that would answer the query.

    Answers are cached by content: started again, it asks nothing twice. Shared by four machines, each says
    its part (--shard 0/4 … 3/4) and has an --out of its own; `crops discriminate` takes all of them.
    """
    from crops.stages.logs import knowledge as stage

    return stage.run(candidates, out, config.section("knowledge"), llm=llm, shard=Shard.parse(shard))


@verb
@LOGS
@CANDIDATES
def theta(logs: Path, candidates: Path, out: Path, config: Config) -> StageReport:
    """Train the discriminator θ on the log's own judgements and calibrate it; the first half of `crops
    discriminate`.
    """
    from crops.stages.learn import theta as stage

    return stage.run(logs, candidates, out, config.section("discriminate"))


@verb
@folder("--theta", "What `crops theta` wrote.")
@CANDIDATES
@SHARD
def score(theta: Path, candidates: Path, out: Path, shard: str, config: Config) -> StageReport:  # noqa: ARG001
    """Score the pairs that θ gates, or on each of several machines a part of them (--shard 0/4 … 3/4, each
    with an --out of its own); `crops discriminate` takes all of them.
    """
    from crops.stages.learn import score as stage

    return stage.run(theta, candidates, out, shard=Shard.parse(shard))


@verb
@LOGS
@CANDIDATES
@folder("--theta", "What `crops theta` wrote. Default: trained now.", default=None)
@folder(
    "--scores",
    "What `crops score` wrote; repeat it for each shard. Default: scored now.",
    multiple=True,
    required=False,
)
@folder(
    "--knowledge", "What `crops knowledge` wrote; repeat it for each shard.", multiple=True, required=False
)
@folder("--champion", "The champion release: its encoder measures query similarity.", default=None)
@TRUTH
def discriminate(logs: Path, candidates: Path, out: Path, config: Config, **given: Any) -> StageReport:
    """Train and calibrate the discriminator; score all pairs and decide which are kept."""
    from crops.stages.learn import discriminate as stage

    return stage.whole(logs, candidates, out, config.section("discriminate"), **given)


@verb
@folder("--scored", "What `crops discriminate` wrote.")
@TRUTH
@folder("--judged", "What `crops judge read` wrote: the ladder believes it before θ.", default=None)
def label(scored: Path, out: Path, truth: Path | None, judged: Path | None, config: Config) -> StageReport:
    """Grade every sample (5 reformulation .. 1 filtered), measure the ladder and choose the hierarchy."""
    from crops.stages.learn import label as stage

    return stage.run(scored, out, config.section("label"), truth=truth, judged=judged)
