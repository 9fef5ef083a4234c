"""Verbs of serving: deploy, serve, embed, push-to-hub, compact."""

import time
from pathlib import Path

import click

from crops import secret
from crops.arms import ALIASES, ARMS, CHAMPION, CONTROL, TREATMENT
from crops.cli.support import EXISTING, FOLDER, config_option, registry_option, shared_out_option, show
from crops.config.all import Config
from crops.errors import ConfigError, InputError, ServiceError
from crops.release import layout
from crops.services.registry import Registry, existing
from crops.stages.base import StageReport
from crops.tables import artifacts
from crops.tables.records import LOGS

COMPACTED = ("compact.json", ".compaction")  # the marks of a folder that `crops compact` writes


@click.command()
@click.option(
    "--release",
    default=None,
    metavar="URI",
    help="models:/NAME/VERSION, or a release's folder. Default: the champion of the registry.",
)
@click.option(
    "--challenger",
    default=None,
    metavar="URI",
    help="A second release, in the treatment arm, for console and experiment.",
)
@registry_option
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--events",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of the event log. Default: STATE/events.",
)
@click.option(
    "--features",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="GrowthBook features file.",
)
@click.option(
    "--videos",
    type=EXISTING,
    default=None,
    help="The table videos: durations, for long plays of short videos.",
)
@click.option(
    "--rollout",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="State of `crops rollout`, for the page /experiment.",
)
@click.option(
    "--readout",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="What `crops experiment` writes, for the same page.",
)
@click.option(
    "--run",
    type=EXISTING,
    default=None,
    help="The folder of a `crops run`: the console also shows what its untouched encoder finds, and the one "
    "trained on clicks alone.",
)
@click.option(
    "--fusion",
    is_flag=True,
    help="Answer with two rankings fused by reciprocal rank: the vectors' and BM25's.",
)
@click.option(
    "--rerank",
    type=click.IntRange(0, 32),
    default=0,
    show_default=True,
    help="First results that the release's re-ranker orders; needs export.reranker.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".crops-serve"),
    show_default=True,
    help="What is kept between two starts: releases, Triton's models, the manifest, logs.",
)
@config_option
def serve(
    release: str | None,
    challenger: str | None,
    registry: str,
    port: int,
    host: str,
    events: Path | None,
    features: Path | None,
    videos: Path | None,
    rollout: Path | None,
    readout: Path | None,
    run: Path | None,
    fusion: bool,
    rerank: int,
    state: Path,
    config: Config,
) -> None:
    """Serve a release on this machine: Triton and the gateway, until Ctrl-C.

    \b
    crops serve --registry sqlite:///runs/quickstart/registry/mlflow.db
    curl -s localhost:8080/v1/search -H 'content-type: application/json' \\
         -d '{"query": "sourdough bread recipe", "user_id": "me", "k": 5}'

    Then open http://localhost:8080. Everything that users do is in the event log; `crops compact` makes
    tables of it.
    """
    from serving import laptop

    models = Registry(registry, config.section("register").name)
    arms = {CONTROL: _folder(release, models, state)}
    if challenger is not None:
        arms[TREATMENT] = _folder(challenger, models, state)
    paths = {
        "features": features,
        "videos": videos,
        "rollout": rollout,
        "readout": readout,
        "report": _report(registry),
    }
    settings: dict[str, object] = {
        name: None if path is None else str(path.resolve()) for name, path in paths.items()
    }
    settings |= {"fusion": fusion, "rerank": rerank}
    settings["alternatives"] = {name: str(path) for name, path in _alternatives(run, state).items()}
    laptop.serve(
        {arm: laptop.release_of(folder, uri) for arm, (folder, uri) in arms.items()},
        state,
        host=host,
        port=port,
        events=events or state / "events",
        settings=settings | config.section("reformulation").model_dump(),
        say=click.echo,
    )


def _alternatives(run: Path | None, state: Path) -> dict[str, Path]:
    """By name, what was trained beside the run's challenger."""
    if run is None:
        return {}
    click.echo("making ready what was trained beside it, to be searched in the console (a minute, once) ...")
    from crops.stages.release import alternatives
    from pipelines import local

    return alternatives.run(*local.learnt(run), state.resolve() / "alternatives")


def _report(uri: str) -> Path | None:
    """The page of the run that the registry lies in, if `crops run` made both."""
    page = Path(uri.removeprefix("sqlite:///")).parent.parent / "report.html"
    return page if uri.startswith("sqlite:///") and page.is_file() else None


def _folder(wanted: str | None, models: Registry, state: Path) -> tuple[Path, str]:
    """The release's folder on this machine and its name."""
    if wanted is not None and Path(wanted).is_dir():
        return Path(wanted), str(Path(wanted).resolve())
    models, version = _version(wanted, models, CHAMPION, ", or say --release FOLDER")
    folder = models.place(version, state / "releases" / f"{models.name}-{version}")
    return folder, models.release(version)


@click.command()
@click.option(
    "--release",
    default=None,
    metavar="URI",
    help="models:/NAME/VERSION. Default: the registry's champion for control, its challenger for treatment.",
)
@click.option(
    "--arm",
    type=click.Choice(ARMS),
    default=TREATMENT,
    show_default=True,
    help="control: everybody gets it; treatment: who is in an experiment.",
)
@click.option("--withdraw", is_flag=True, help="Take the arm's release out of the manifest instead.")
@registry_option
@config_option
def deploy(release: str | None, arm: str, withdraw: bool, registry: str, config: Config) -> None:
    """Put a registered release into service and wait until every gateway serves it.

    Its encoder goes to Triton, its files to the folder that gateways read, its name into the manifest by
    compare-and-set: who was faster is kept. A gateway that refuses it (checksum, fingerprint, index) goes on
    with what it had, and this ends with its reason. The section `deploy` of the config says where all of that
    is.
    """
    from crops.stages.release import deploy as stage

    started_s = time.monotonic()
    section = config.section("deploy")
    served = section.served()
    if withdraw:
        generation, note = stage.withdraw(arm, section), f"{arm} is empty"
    else:
        models = Registry(registry, config.section("register").name)
        models, version = _version(release, models, ALIASES[arm])
        result = stage.release(models, version, arm, section)
        generation = result["generation"]
        note = f"{result['uri']} is {arm}, as {result['model']} at Triton"
    show("deploy", started_s, StageReport(numbers={"generation": generation}, notes=(note,)), served)


@click.command()
@click.option("--release", required=True, metavar="URI", help="models:/NAME/VERSION.")
@click.option(
    "--sha256",
    "checksum",
    required=True,
    help="Of the release's checksums.json: pins its content, not only its name.",
)
@click.option(
    "--releases",
    required=True,
    metavar="PLACE",
    help="Folder or fsspec URL that gateways and Tritons read from.",
)
@click.option("--manifest", required=True, metavar="URL", help="The release manifest.")
@registry_option
def pull(release: str, checksum: str, releases: str, manifest: str, registry: str) -> None:
    """Start a new installation with a pinned release; what serves already is left alone.

    Where the manifest names no champion yet, the release is fetched from the registry, checked and named;
    otherwise nothing happens, so that it may run before every start of a gateway.
    """
    from crops.config.deploy import DeployConfig
    from crops.stages.release import deploy as stage

    started_s = time.monotonic()
    values = {"manifest": manifest, "releases": releases, "triton": None}
    cfg = DeployConfig.parse(values, source="command line")
    models, version = _named(release, registry)
    result = stage.bootstrap(models, version, checksum, cfg)
    note = f"{result['uri']} {'is served already' if result.get('kept') else 'is control now'}"
    report = StageReport(numbers={"generation": result["generation"]}, notes=(note,))
    show("pull", started_s, report, manifest)


def _version(wanted: str | None, models: Registry, alias: str, remedy: str = "") -> tuple[Registry, str]:
    """The model and version that `wanted` names; None: the one of `models` that has the alias."""
    if wanted is not None:
        return _named(wanted, models.uri)
    existing(models.uri)
    if (version := models.holder(alias)) is None:
        raise ConfigError(
            f"{models.uri}: no {alias} is registered as {models.name}; `crops run` registers one{remedy}"
        )
    return models, version


def _named(release: str, uri: str) -> tuple[Registry, str]:
    if not release.startswith("models:/") or release.count("/") != 2:
        raise InputError("--release", f"{release!r} is neither a folder nor models:/NAME/VERSION")
    name, version = release.removeprefix("models:/").split("/")
    return Registry(existing(uri), name), version


@click.command()
@click.option(
    "--release",
    default=None,
    help="models:/NAME/VERSION, a release's folder, or what `crops export` wrote. Default: the champion.",
)
@click.option(
    "--documents",
    type=EXISTING,
    required=True,
    help="What `crops augment` wrote, or a release: a folder with the table documents.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Parquet file to write: doc_id, and vector as a list of float32.",
)
@click.option(
    "--shard",
    default="0/1",
    show_default=True,
    metavar="I/N",
    help="Only this part of the documents, for several machines, each with a file of its own.",
)
@registry_option
@config_option
def embed(release: str | None, documents: Path, out: Path, shard: str, registry: str, config: Config) -> None:
    """Write the vectors of documents for any vector store: those that the release's index holds.

    Interrupted or killed, the same command encodes only what is missing. The queries' side is the release's
    query encoder: what it gives is compared by the inner product.
    """
    from crops.stages.base import Shard
    from crops.stages.release import embed as stage

    started_s = time.monotonic()
    stage.refuse(out)  # before a release is fetched
    models = Registry(registry, config.section("register").name)
    place, _ = _folder(release, models, stage.parts_of(out))
    report = stage.run(place, documents, out, config.section("index"), shard=Shard.parse(shard))
    show("embed", started_s, report, out)


@click.command("push-to-hub")
@click.option(
    "--release", default=None, metavar="URI", help="models:/NAME/VERSION, or a folder. Default: the champion."
)
@click.option("--repository", required=True, metavar="OWNER/NAME", help="On the Hugging Face Hub.")
@click.option("--public", is_flag=True, help="A repository that is made here is for all. Default: private.")
@click.option("--branch", default="main", show_default=True, help="Branch of the repository.")
@click.option("--dry-run", is_flag=True, help="List what would go, and send nothing.")
@registry_option
@config_option
def push_to_hub(
    release: str | None,
    repository: str,
    public: bool,
    branch: str,
    dry_run: bool,
    registry: str,
    config: Config,
) -> None:
    """A release's encoder to the Hugging Face Hub, for SentenceTransformer("OWNER/NAME").

    Encoder, tokenizer and model card go; documents, index and training pairs are of your log and stay. The
    library's own settings say who you are and where the Hub is: HF_TOKEN or `hf auth login`, HF_ENDPOINT.
    """
    import tempfile

    from crops.services import hugging_face

    models = Registry(registry, config.section("register").name)
    with tempfile.TemporaryDirectory(prefix="crops-push-") as scratch:
        folder, name = _folder(release, models, Path(scratch))
        made = hugging_face.uploads(folder, repository)
        for upload in made:
            click.secho(upload.repository, bold=True)
            for path, size in upload.sizes().items():
                click.echo(f"  {size:>12,} {path}")
        if dry_run:
            click.echo("nothing was sent")
            return
        told = name if name.startswith("models:/") else layout.checksum(folder)[:12]
        message = f"Release {told} of CroPS"
        for commit in hugging_face.push(made, private=not public, branch=branch, message=message):
            click.echo(commit)


@click.command()
@click.option(
    "--events",
    type=FOLDER,
    multiple=True,
    required=True,
    help="Folder of an event log; repeat it for each replica's. With --kafka the first one is made.",
)
@click.option(
    "--videos",
    type=EXISTING,
    default=None,
    help="The table videos, copied beside, so that validate has all it needs.",
)
@click.option("--feed", type=EXISTING, default=None, help="The table feed, copied beside.")
@click.option(
    "--kafka",
    default=None,
    metavar="SERVERS",
    help="First copy into --events what Kafka holds and was not copied yet.",
)
@click.option(
    "--kafka-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    metavar="FILE",
    help="Lines name=value that say how Kafka lets us in: security.protocol, sasl.*, ssl.* of librdkafka.",
)
@click.option("--topic", default="crops-events", show_default=True, help="Topic of the events, with --kafka.")
@click.option(
    "--publish",
    default=None,
    metavar="URL",
    help="Then copy what changed of the tables to this fsspec URL, where `crops submit --logs` reads them.",
)
@click.option("--retire", is_flag=True, help="Remove segments all of whose records are in the tables.")
@click.option(
    "--accept-damage",
    is_flag=True,
    help="End with 0 although bytes of a segment are no record; they are kept in OUT/damaged.",
)
@shared_out_option("Folder of the tables: what is new is added, day by day.")
def compact(
    events: tuple[Path, ...],
    videos: Path | None,
    feed: Path | None,
    kafka: str | None,
    kafka_file: Path | None,
    topic: str,
    publish: str | None,
    retire: bool,
    accept_damage: bool,
    out: Path,
) -> None:
    """Event logs of all replicas to the tables searches and results, as `crops validate` reads them.

    Only what is new is read, and only days that it changes are written: run it as often as you like, also
    while gateways write. Repeated events count once, of plays the longest; events that belong to nothing that
    was logged go to orphans/ with a reason. Damaged bytes end it with 1, after all else was done.
    OUT.compacted.json tells when it last succeeded.
    """
    import shutil

    from serving.events import compact as compaction

    started_s = time.monotonic()
    if kafka is not None:
        _from_kafka(kafka, topic, events[0], kafka_file)
    for folder in events:
        if not folder.is_dir():
            raise InputError(folder, "no such folder: expected the event log of a gateway")
    if out.is_dir() and any(out.iterdir()) and not any((out / n).exists() for n in COMPACTED):
        raise InputError(out, "holds what `crops compact` has not written; give it a folder of its own")
    tally = compaction.compact(events, out, accept_damage=accept_damage, retire=retire)
    for name, source in (("videos", videos), ("feed", feed)):
        if source is not None:
            with artifacts.replacing(out / name, private=True) as partial:
                shutil.copytree(source, partial, dirs_exist_ok=True)
    totals = compaction.totals(out)
    mark = out / COMPACTED[0]
    if not mark.exists() or artifacts.read_json(mark) != totals:  # an unchanged log keeps its fingerprint
        artifacts.write_json(mark, totals)
    numbers: dict[str, float | int] = {
        "searches": tally.searches,
        "results": tally.results,
        "interactions": tally.interactions,
        "duplicates": tally.duplicates,
        "orphans": sum(tally.orphans.values()),
        "torn_bytes": tally.torn_bytes,
        "days_written": tally.days,
        "retired_bytes": tally.retired_bytes,
        **{f"{name}_in_all": count for name, count in totals.items()},
    }
    if not totals["searches"]:
        click.echo(f"compact: no search in any segment of {', '.join(map(str, events))} yet")
    else:
        notes = [f"{n} orphans: {why}" for why, n in tally.orphans.items()]
        if tally.newer:
            notes.append(f"{tally.newer} records of a newer version are kept in {out / compaction.NEWER}")
        show("compact", started_s, StageReport(numbers=numbers, notes=tuple(notes)), out)
    if publish is not None:
        tables = [table.name for table in LOGS if (out / table.name).is_dir()]
        click.echo(f"{_published(out, tables, publish)} files to {publish}")
    if tally.damage:
        (place, size), others = next(iter(tally.damage.items())), len(tally.damage) - 1
        more = f" (and {others} more places)" if others else ""
        kept = f"kept in {out / 'damaged'}; --accept-damage goes on without them"
        click.echo(f"crops: {place}: {size} bytes are no record{more}; {kept}", err=True)
        raise click.exceptions.Exit(1)
    artifacts.write_json(out.with_name(f"{out.name}.compacted.json"), {"at_s": time.time(), **numbers})


def _published(out: Path, tables: list[str], url: str) -> int:
    try:
        return artifacts.mirror(out, tables, url, out.with_name(f"{out.name}.published.json"))
    except Exception as error:  # whatever a store answers with
        raise ServiceError(f"{url}: the tables cannot be copied there: {error}") from error


def _from_kafka(servers: str, topic: str, folder: Path, file: Path | None) -> None:
    from serving.events import kafka
    from serving.events.log import EventLogError, SegmentLog

    kafka_settings = kafka.settings_in(file)
    try:
        log = SegmentLog(folder, replica="kafka")
        try:
            count = kafka.drain(servers, topic, "crops-compact", log, settings=kafka_settings)
            click.echo(f"{count:,} records from Kafka")
        finally:
            log.stop()
    except EventLogError as error:
        raise ServiceError(str(error)) from error


@click.command("retrain-hook")
@click.option(
    "--url",
    required=True,
    metavar="URL",
    help="Where a POST starts the workflow, e.g. GitHub's .../dispatches.",
)
@click.option(
    "--body",
    default='{"ref": "main", "inputs": {"reason": "drift"}}',
    show_default=True,
    help="JSON of that call.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="File with the CI's bearer token.",
)
@click.option(
    "--hook-token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="File with the token that Alertmanager sends.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("retrain.json"),
    show_default=True,
    help="File that remembers the last start.",
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0),
    default=86_400.0,
    show_default=True,
    help="Least seconds between two starts.",
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8090, show_default=True)
def retrain_hook(
    url: str,
    body: str,
    token_file: Path,
    hook_token_file: Path,
    state: Path,
    every_s: float,
    host: str,
    port: int,
) -> None:
    """Let a drift alert start a training: Alertmanager's webhook to your CI's workflow, until Ctrl-C.

    monitoring/alertmanager.yaml has the route. Repeated and flapping alerts start one training in --every
    seconds.
    """
    import json
    import logging

    from serving import retrain_hook as hooks

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        request = json.loads(body)
    except ValueError as error:
        raise InputError("--body", f"not JSON: {error}") from error
    headers = {"authorization": f"Bearer {secret.text(secret.read(token_file), token_file)}"}
    hook = hooks.Hook(url, headers=headers, body=request, state=state, every_s=every_s)
    token = secret.text(secret.read(hook_token_file), hook_token_file)
    try:
        server = hooks.server(hook, host, port, token=token)
    except OSError as error:
        raise ServiceError(f"{error.filename}: {error.strerror}") from error
    click.echo(f"listening on {f'[{host}]' if ':' in host else host}:{port}")
    server.serve_forever()
