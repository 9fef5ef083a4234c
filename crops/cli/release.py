"""Verbs from numbers to a release: gate, register, and run, which is the whole pipeline on this machine."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from crops import secret
from crops.arms import CHALLENGER, CHAMPION
from crops.cli.support import EXISTING, config_option, out_option, registry_option, shared_out_option, show
from crops.config.all import Config
from crops.errors import InputError
from crops.tables import artifacts, records

EXIT_BY_VERDICT = {"promote": 0, "reject": 3, "unknown": 4}
NOTHING_NEW = 5


@click.command()
@click.option("--metrics", type=EXISTING, required=True, help="What `crops evaluate` wrote.")
@click.option(
    "--export", "exported", type=EXISTING, required=True, help="What `crops export` wrote for the challenger."
)
@click.option(
    "--index", "indexed", type=EXISTING, required=True, help="What `crops index` wrote for the challenger."
)
@click.option("--challenger", default="crops", show_default=True, help="System on trial.")
@click.option(
    "--champion",
    default=None,
    help="System it is held against. Default: champion where it was measured, else clicks.",
)
@out_option
@config_option
def gate(
    metrics: Path,
    exported: Path,
    indexed: Path,
    challenger: str,
    champion: str | None,
    out: Path,
    config: Config,
) -> None:
    """Challenger against champion. Exit code 0 promote, 3 reject, 4 unknown."""
    from crops.stages.release import gate as stage

    started_s = time.monotonic()
    section = config.section("gate")
    report = stage.run(
        metrics, out, section, export=exported, index=indexed, challenger=challenger, champion=champion
    )
    show("gate", started_s, report, out)
    verdict = artifacts.read_json(out / "verdict.json")
    for reason in verdict["reasons"]:
        click.echo(f"  {verdict['verdict']}: {reason}")
    sys.exit(EXIT_BY_VERDICT[verdict["verdict"]])


@click.command()
@click.option("--export", "exported", type=EXISTING, required=True, help="What `crops export` wrote.")
@click.option("--index", "indexed", type=EXISTING, required=True, help="What `crops index` wrote.")
@click.option("--documents", type=EXISTING, required=True, help="What `crops augment` wrote.")
@click.option("--samples", type=EXISTING, required=True, help="What `crops label` wrote.")
@click.option("--metrics", type=EXISTING, default=None, help="What `crops evaluate` wrote.")
@click.option(
    "--verdict",
    type=EXISTING,
    default=None,
    help="What `crops gate` wrote: anything but promote is not registered.",
)
@registry_option
@click.option("--alias", type=click.Choice([CHAMPION, CHALLENGER]), default=CHALLENGER, show_default=True)
@out_option
@config_option
def register(
    exported: Path,
    indexed: Path,
    documents: Path,
    samples: Path,
    metrics: Path | None,
    verdict: Path | None,
    registry: str,
    alias: str,
    out: Path,
    config: Config,
) -> None:
    """Register encoder, tokenizer, index, documents and fingerprint as one MLflow model version."""
    from crops.stages.release import register as stage

    started_s = time.monotonic()
    report = stage.run(
        exported,
        indexed,
        documents,
        samples,
        out,
        config.section("register"),
        registry=registry,
        alias=alias,
        verdict=verdict,
        metrics=metrics,
    )
    show("register", started_s, report, out)


@click.command()
@click.option(
    "--logs", type=EXISTING, required=True, help="Your tables, or what `crops world` or `crops import` wrote."
)
@shared_out_option("Folder for the report and for what a restart needs.")
@click.option(
    "--llm",
    default=None,
    help="URL of an OpenAI-compatible LLM; `world`: the simulated world's; `local`: a small real one.",
)
@registry_option
@click.option(
    "--shards",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Parts that the LLM's work and θ's are split into, each restarted alone.",
)
@click.option(
    "--runner",
    type=click.Choice(["subprocess", "docker"]),
    default="subprocess",
    show_default=True,
    help="docker: every task in its image (docker/build), as on a cluster, at the engine of DOCKER_HOST.",
)
@click.option("-v", "--verbose", "voice", flag_value="verbose", help="Show every task's output.")
@click.option("-q", "--quiet", "voice", flag_value="quiet", help="Say nothing but the verdict.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing but report.json, with its folder.")
@config_option
def run(
    logs: Path,
    out: Path,
    llm: str | None,
    registry: str,
    shards: int,
    runner: str,
    voice: str | None,
    as_json: bool,
    config: Config,
) -> None:
    """Logs to a gated, registered release, as the KFP training pipeline on this machine's local runner.

    Ends with the recall of every system, the verdict, report.html and report.json. Interrupted or killed, the
    same command goes on where it was. Exit code 0 promote, 3 reject, 4 unknown, 1 when a critical expectation
    on the logs fails.
    """
    from crops.services.registry import near, uri_of
    from pipelines import local, screen

    if lacking := [table.name for table in records.REQUIRED if not artifacts.exists(logs, table)]:
        raise InputError(
            logs, f"no Parquet file of the table {', '.join(lacking)}: `crops look {logs}` says what is there"
        )
    spoken: screen.Voice = "quiet" if as_json or voice == "quiet" else "verbose" if voice else "normal"
    options: dict[str, Any] = {"llm": llm, "registry": registry, "shards": shards, "runner": runner}
    try:
        report = local.run(logs, out, config, voice=spoken, **options)
    except (KeyboardInterrupt, SystemExit):
        click.echo(
            f"\ncrops run: stopped; what is done is kept in {out}: the same command goes on there", err=True
        )
        raise
    verdict = report["gate"]["verdict"]
    if as_json:
        click.echo(json.dumps({"out": str(out), "registry": registry, **report}, ensure_ascii=False))
    elif spoken == "quiet":
        click.echo(verdict)
    else:
        click.echo("\n".join(screen.outcome(report, out, near(registry), near(uri_of()))))
    sys.exit(EXIT_BY_VERDICT[verdict])


@click.command()
@click.option(
    "--host", required=True, metavar="URL", envvar="KFP_HOST", help="Address of the KFP API; or KFP_HOST."
)
@click.option(
    "--pipeline",
    type=click.Choice(["training", "refresh_index", "rollout"]),
    default="training",
    show_default=True,
    help="refresh_index: new videos into the champion's index; rollout: canary and A/B of the challenger.",
)
@click.option(
    "--logs", default=None, metavar="URI", help="Your tables in a bucket: gs://, s3:// or minio://."
)
@click.option("--name", default=None, help="rollout: what metrics and audit trail call it.")
@click.option(
    "--state",
    default=None,
    metavar="DIR",
    help="rollout: an s3:// URL, or a folder of a volume that the gateways see too.",
)
@click.option("--prometheus", default=None, metavar="URL", help="rollout: Prometheus as the task reaches it.")
@click.option(
    "--readout", default="", metavar="FILE", help="rollout: readout.json on that volume, made anew beside."
)
@click.option(
    "--llm", default="", help="URL of an OpenAI-compatible LLM that the tasks reach; none: no knowledge."
)
@click.option("--registry", required=True, metavar="URI", help="MLflow tracking URI that the tasks reach.")
@click.option(
    "--checkpoints",
    default="",
    metavar="DIR",
    help="A volume's path to resume from: without it a retry starts anew.",
)
@click.option(
    "--shards",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Pods that share the LLM's work and θ's.",
)
@click.option(
    "--version", default=None, help="Name of the uploaded version. Default: the commit of this checkout."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="File with the bearer token of the API.",
)
@click.option(
    "--every",
    "cron",
    default=None,
    metavar="CRON",
    help='A recurring run instead, e.g. "0 3 * * 1": Mondays at 3.',
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Stay until it ends; stopped, the run is ended too.",
)
@click.option(
    "--look",
    is_flag=True,
    help="Submit nothing: the verdict of the last training that has ended, told once; none: exit code 5.",
)
@click.option(
    "--compile-only",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    metavar="FILE",
    help="Write the pipeline with the cluster's settings there, and do no more.",
)
@config_option
def submit(
    host: str,
    pipeline: str,
    logs: str | None,
    name: str | None,
    state: str | None,
    prometheus: str | None,
    readout: str,
    llm: str,
    registry: str,
    checkpoints: str,
    shards: int,
    version: str | None,
    token_file: Path | None,
    cron: str | None,
    wait: bool,
    look: bool,
    compile_only: Path | None,
    config: Config,
) -> None:
    """A pipeline on Kubeflow: compile, upload as a version of this commit, run, wait.

    \b
    crops submit --host https://kfp.example/pipeline --logs s3://logs/search \\
        --registry http://mlflow:5000 --config cluster.yaml
    crops submit --pipeline refresh_index --host ... --logs s3://catalogue --registry ... --every "0 * * * *"
    crops submit --pipeline rollout --host ... --name autumn --state /shared/rollout \\
        --prometheus http://... --registry ...

    Resources, nodes, secrets, volumes and images are in the config's section `kubeflow`. Exit code 0 promote,
    3 reject, 4 unknown, 2 where the run fails; a rollout's run fails where the challenger is not promoted.
    """
    from pipelines import submit as submission

    if compile_only is not None:
        submission.compiled(
            compile_only,
            config.section("kubeflow"),
            pipeline,
            shards=shards,
            last_fit=config.section("train").last_fit,
            caching=cron is None,
        )
        click.echo(f"compiled: {compile_only}")
        return
    token = secret.text(token_file.read_bytes().strip(), token_file) if token_file else None
    if look:
        verdict = submission.look(host, config, token=token, say=click.echo)
        sys.exit(NOTHING_NEW if verdict is None else EXIT_BY_VERDICT[verdict])
    sending: dict[str, Any] = {
        "version": version,
        "token": token,
        "cron": cron,
        "wait": wait,
        "say": click.echo,
    }
    if pipeline == "rollout":
        name, state, prometheus = _said(pipeline, name=name, state=state, prometheus=prometheus)
        parameters = submission.rollout(
            config, name=name, state=state, prometheus=prometheus, readout=readout, registry=registry
        )
        submission.send(host, config.section("kubeflow"), pipeline, parameters, subject=name, **sending)
        return
    (logs,) = _said(pipeline, logs=logs)
    submission.refuse_path(logs)
    if pipeline == "refresh_index":
        parameters = submission.refresh(config, logs=logs, registry=registry)
        submission.send(host, config.section("kubeflow"), pipeline, parameters, subject=logs, **sending)
        return
    verdict = submission.submit(
        host, config, logs=logs, llm=llm, registry=registry, checkpoints=checkpoints, shards=shards, **sending
    )
    if verdict is not None:
        sys.exit(EXIT_BY_VERDICT[verdict])


def _said(pipeline: str, **given: str | None) -> tuple[str, ...]:
    """Options that this pipeline cannot do without."""
    if missing := [f"--{name}" for name, value in given.items() if not value]:
        raise click.UsageError(f"--pipeline {pipeline} needs {' and '.join(missing)}")
    return tuple(value for value in given.values() if value)


@click.command()
@click.option(
    "--logs",
    type=EXISTING,
    required=True,
    help="Folder that holds `videos`: the whole catalogue as it is now.",
)
@registry_option
@shared_out_option("Folder for what each step writes.")
@config_option
def refresh(logs: Path, registry: str, out: Path, config: Config) -> None:
    """New videos into the champion's index: encode them, extend or rebuild it, register, and swap it in.

    The encoder stays the same. Where the config's `deploy.manifest` is set, gateways follow. On a cluster:
    `crops submit --pipeline refresh_index`.
    """
    from crops.services.registry import existing
    from crops.stages.release import adopt, champion, deploy
    from crops.stages.release import refresh as stage

    existing(registry)
    names, serving = config.section("register"), config.section("deploy")
    steps = {
        "champion": lambda folder: champion.run(folder, names, registry=registry),
        "refresh": lambda folder: stage.run(out / "champion", logs, folder, config.section("index")),
        "adopt": lambda folder: adopt.run(
            out / "refresh", folder, names, uri=registry, served=serving.manifest
        ),
        "deploy": lambda folder: deploy.run(out / "adopt", folder, serving, registry_uri=registry),
    }
    for name, step in steps.items():
        started_s = time.monotonic()
        show(name, started_s, step(out / name), out / name)
