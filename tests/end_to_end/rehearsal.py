"""The closed loop on one machine: `make rehearsal`. Simulated, and it says so.

The first release of `make run` (the better of base and clicks) is the champion, its crops release the
challenger. The world's people search before a live stack (Triton, gateway, event log, a real Prometheus); the
rollout controller widens the canary, the A/B is read from the compacted events, and the verdict is acted on.
Then three bad releases are tried: an index of another encoder, which every gateway must refuse; an untrained
encoder that is sound in itself, and the champion's own made slow, which the guardrails must roll back. Last,
what people did is appended to the log as its newest day, and the pipeline trains on it. Ends in
rehearsal.html.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from crops.config.deploy import DeployConfig  # noqa: E402
from crops.config.experiment import ExperimentConfig  # noqa: E402
from crops.config.export import ExportConfig  # noqa: E402
from crops.config.index import IndexConfig  # noqa: E402
from crops.config.rollout import GUARDRAILS, RolloutConfig  # noqa: E402
from crops.errors import ServiceError  # noqa: E402
from crops.experiment import rollout as rules  # noqa: E402
from crops.release import layout  # noqa: E402
from crops.retriever import encoder as encoders  # noqa: E402
from crops.services.registry import Registry, uri_of  # noqa: E402
from crops.stages.release import export, index  # noqa: E402
from crops.stages.trial import experiment, rollout  # noqa: E402
from crops.tables import artifacts  # noqa: E402
from serving import laptop  # noqa: E402
from serving.events import compact  # noqa: E402
from serving.triton import launch  # noqa: E402
from tests import bad_releases  # noqa: E402
from tests.load.people import People  # noqa: E402

BY_WHAT_IS_FOUND = ("ctr", "lpr", "rqr", "empty results", "readout: worse")
PAPER = {"ctr": 0.00869, "lpr": 0.00483, "rqr": -0.00646}


@dataclass
class Stage:
    """What runs beside the rehearsal, and where it writes."""

    out: Path
    compression: float
    url: str
    prometheus: str
    registry: Registry
    place: rollout.Place


def plan(seconds: float) -> RolloutConfig:
    """A canary of two steps and an A/B; `seconds` for each step's dwell."""
    steps = (
        {"coverage": 0.2, "dwell_s": seconds, "min_users": 20},
        {"coverage": 0.5, "dwell_s": seconds, "min_users": 50},
    )
    ab = {"min_s": 3 * seconds, "max_s": 20 * seconds, "min_users": 200}
    # A day of a platform in a minute of a laptop: a fifth of the events must do, but for p99, of which 40
    # searches say nothing.
    rails = [
        rail.model_dump() | ({} if rail.name == "p99" else {"min_events": rail.min_events / 5})
        for rail in GUARDRAILS
    ]
    return RolloutConfig.parse(
        {"steps": list(steps), "ab": ab, "look_back_s": 300, "max_skew_s": 60, "guardrails": rails}
    )


def walk(stage: Stage, name: str, settings: RolloutConfig) -> dict[str, Any]:
    """Starts a rollout of the registry's challenger and looks until it is over; its trail and the last
    readout.
    """
    shutil.rmtree(stage.place.folder, ignore_errors=True)
    began = rollout.start(stage.place, settings, name=name)
    print(f"== {name}: {began.treatment} against {began.control}", flush=True)
    reason, state = "", began
    for look in range(2000):
        time.sleep(5)
        if look % 3 == 0:
            read(stage, began.started_s)
        covered = rules.coverage(settings, state)
        state, verdict = rollout.step(stage.place, settings)
        if verdict.reason.split(" ")[0] != reason:
            print(f"   {state.phase} {state.step + 1}: {verdict.kind}: {verdict.reason[:150]}", flush=True)
            reason = verdict.reason.split(" ")[0]
        if state.phase not in rules.RUNNING:
            break
    read(stage, began.started_s)
    trail = [json.loads(line) for line in rollout.trail(stage.place)]
    return {
        "name": name,
        "control": began.control,
        "treatment": began.treatment,
        "phase": state.phase,
        "trail": trail,
        "coverage_at_the_end": covered,
    }


def read(stage: Stage, since_s: float) -> None:
    """Events so far to tables, and their readout."""
    folder = stage.out / "tables"
    with artifacts.replacing(folder) as partial:
        compact.compact([stage.out / "events"], partial)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since_s))
    cfg = ExperimentConfig.parse(
        {"since": since, "window_s": max(1, round(90 / stage.compression)), "planned_users": 1000}
    )
    experiment.run(folder, stage.out / "readout", cfg, videos=stage.out / "world")


def bad_index(stage: Stage, control: Path, challenger: Path) -> str:
    """The champion's encoder with the challenger's index, registered as if it were whole: what a gateway says
    to it.
    """
    version = enlist(stage, bad_releases.other_index(control, challenger, stage.out / "bad-index"))
    try:
        rollout.deploy.release(stage.registry, version, "treatment", stage.place.deploy)
    except ServiceError as error:
        rollout.deploy.withdraw("treatment", stage.place.deploy)
        return str(error)
    return "SERVED: this must not happen"


def untrained(stage: Stage, control: Path) -> str:
    """A release that is sound in itself and knows nothing: its version in the registry."""
    documents = artifacts.read(control, artifacts_table()).to_pydict()
    made = stage.out / "untrained"
    (made / "encoder").mkdir(parents=True)
    encoders.from_base("small", documents["text"]).save(made / "encoder", system="untrained")
    export.run(made, stage.out / "untrained-onnx", ExportConfig())
    index.run(stage.out / "untrained-onnx", control, stage.out / "untrained-index", IndexConfig())
    folder = stage.out / "untrained-release"
    shutil.copytree(control, folder)
    for source in (*(stage.out / "untrained-onnx").iterdir(), *(stage.out / "untrained-index").iterdir()):
        if source.is_file():
            shutil.copyfile(source, folder / source.name)
    from crops.release.encoder import OnnxEncoder

    probes = artifacts.read_json(folder / "fingerprint.json")["queries"]
    vectors = OnnxEncoder(folder).encode(probes)
    rounded = [[round(float(x), 6) for x in row] for row in vectors]
    artifacts.write_json(folder / "fingerprint.json", {"queries": probes, "vectors": rounded})
    return enlist(stage, folder)


def slow(stage: Stage, control: Path) -> str:
    """The champion's release with an encoder that gives the same vectors after some needless work: its
    version.
    """
    return enlist(stage, bad_releases.slowed(control, stage.out / "slow-release"))


def next_log(stage: Stage, world: Path) -> Path:
    """The world's log with the rehearsal as its newest day: its times stretched again, so that 90 s are
    90 s.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    logs = stage.out / "next-logs"
    shutil.copytree(world, logs)
    day = max(p.name.removeprefix("date=") for p in (logs / "searches").iterdir())
    newest = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)
    for name in ("searches", "results"):
        parts = [
            pq.read_table(p, partitioning=None)
            for p in sorted((stage.out / "tables" / name).rglob("*.parquet"))
        ]
        found = pa.concat_tables(parts)
        if "ts" in found.column_names:
            times = pc.cast(found["ts"], pa.int64())
            first = pc.min(times).as_py()
            stretched = pc.cast(
                pc.multiply(pc.cast(pc.subtract(times, first), pa.float64()), stage.compression),
                pa.int64(),
                safe=False,
            )
            moved = pc.cast(pc.add(stretched, int(newest.timestamp() * 1e6)), pa.timestamp("us", tz="UTC"))
            found = found.set_column(found.column_names.index("ts"), "ts", moved)
        folder = logs / name / f"date={newest:%Y-%m-%d}"
        folder.mkdir(parents=True)
        pq.write_table(found, folder / "part-0.parquet")
    return logs


def train_on(stage: Stage, logs: Path) -> dict[str, Any]:
    """The pipeline on that log, against the champion that the rehearsal promoted: its verdict, and what the
    newest day gave.
    """
    command = [
        sys.executable,
        "-m",
        "crops",
        "run",
        "--logs",
        str(logs),
        "--out",
        str(stage.out / "next"),
        "--config",
        str(ROOT / "configs/quickstart.yaml"),
        "--registry",
        stage.registry.uri,
        "--llm",
        "world",
    ]
    print("== the pipeline on what people did", flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    if code not in (0, 3, 4):
        return {"verdict": f"exit code {code}", "reasons": [], "closed": False}
    report = artifacts.read_json(stage.out / "next/report.json")
    return {
        "verdict": report["gate"]["verdict"],
        "reasons": report["gate"]["reasons"],
        "recall_at_100": report["recall_at_100"],
        "closed": True,
    }


def artifacts_table() -> Any:
    from crops.tables import records

    return records.DOCUMENTS


def enlist(stage: Stage, folder: Path) -> str:
    return stage.registry.register(folder, tags={"checksums": layout.seal(folder)})


def page(stage: Stage, report: dict[str, Any]) -> None:
    import html

    def rows(found: dict[str, Any]) -> str:
        return "".join(
            f"<tr><td>{line['at'][11:19]}</td><td>{line['phase']} "
            f"{line['step'] + 1}</td><td>{line['verdict']}</td>"
            f"<td>{html.escape(line['reason'])}</td></tr>"
            for line in found["trail"]
        )

    lifts = "".join(
        f"<tr><td>{name.upper()}</td><td>{_percent(m['lift'])}</td><td>{_percent(m['low'])} to "
        f"{_percent(m['high'])}</td>"
        f"<td>{m['verdict']}</td><td>{100 * PAPER[name]:+.3f} %</td></tr>"
        for name, m in report["lifts"].items()
    )
    trails = ""
    for r in report["rollouts"]:
        end = f"{r['phase']} at a coverage of {r['coverage_at_the_end']:.0%}"
        trails += (
            f"<h3>{r['name']}: {r['treatment']} against {r['control']}: {end}</h3><table>{rows(r)}</table>"
        )
    style = (ROOT / "crops/report/style.html.j2").read_text()
    text = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>CroPS rehearsal</title>{style}</head><body>
<h1>CroPS rehearsal</h1>
<p class="box unknown"><b>Simulated people.</b>
{report["searches"]:,} searches in {report["minutes"]:.0f} minutes.
Delays between searches and the window of reformulations are compressed {stage.compression:.0f} times;
dwell times of the rollout are seconds.
What is measured here says that the machinery works, not what users would do.</p>
<h2>Measured lifts of crops over clicks</h2><table>
<tr><th>Metric</th><th>Lift</th><th>always-valid 95 % interval</th><th></th><th>the paper, on people</th></tr>
{lifts}</table>
<p><a href="readout-crops/readout.html">The readout</a></p>
<h2>Rollouts</h2>{trails}
<h2>An index of another encoder</h2><p class="box">{html.escape(report["bad_index"])}</p>
<h2>The loop closes</h2><p>The log with the rehearsal as its newest day, validated, mined, and
trained on against the promoted champion: {html.escape(report["next"]["verdict"])}.
<a href="next/report.html">The report</a></p>
<ul>{"".join(f"<li>{html.escape(reason)}</li>" for reason in report["next"]["reasons"])}</ul></body></html>"""
    (stage.out / "rehearsal.html").write_text(text, encoding="utf-8")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="what `make run` wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/rehearsal"))
    parser.add_argument(
        "--compression", type=float, default=30.0, help="of delays between searches and of the 90 s window"
    )
    parser.add_argument(
        "--step-seconds",
        type=float,
        default=20.0,
        help="dwell of a canary step; the A/B takes 3 to 20 times it",
    )
    parser.add_argument("--sessions-per-second", type=float, default=20.0)
    given = parser.parse_args()
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    world = given.run.with_name(f"{given.run.name}-logs").resolve()
    shutil.copytree(given.run / "registry", out / "registry")
    registry = _own_registry(given.run, out)
    shutil.copytree(world / "videos", out / "world/videos")
    control = registry.download(registry.holder("champion") or "1", out / "control")
    challenger = registry.download(registry.holder("challenger") or "2", out / "challenger")
    (port,), stop, said, began_s = launch.free_ports(1), threading.Event(), [], time.monotonic()
    url = f"http://127.0.0.1:{port}"
    settings = {"poll_s": 0.2, "window_s": 90 / given.compression, "features": str(out / "features.json")}
    champion = laptop.release_of(control, registry.release(registry.holder("champion") or "1"))
    stack = threading.Thread(
        target=lambda: laptop.serve(
            {"control": champion},
            out / "state",
            host="127.0.0.1",
            port=port,
            events=out / "events",
            settings=settings,
            say=lambda line: (said.append(line), print(f"   {line}", flush=True)),
            stop=stop.is_set,
            handle_signals=False,
        )
    )
    stack.start()
    while not any(line.startswith("ready") for line in said):
        time.sleep(0.2)
        if not stack.is_alive():
            return 1
    triton = next(line.split()[-1] for line in said if line.startswith("Triton: "))
    monitor, asked = _prometheus(out, port)
    deploy = DeployConfig(
        manifest=str(out / "state/manifest.json"),
        triton=triton,
        repository=str(out / "state/models"),
        releases=str(out / "releases"),
        gateways=(url,),
    )
    place = rollout.Place(
        folder=str(out / "rollout"),
        prometheus=asked,
        registry=registry,
        features=str(out / "features.json"),
        readout=out / "readout/readout.json",
        deploy=deploy,
    )
    stage = Stage(
        out=out, compression=given.compression, url=url, prometheus=asked, registry=registry, place=place
    )
    home = threading.Event()
    people = People(
        world, url, compression=given.compression, sessions_per_s=given.sessions_per_second, seed=0
    )
    crowd = threading.Thread(target=people.run, args=(home.is_set,))
    crowd.start()
    try:
        report = _rehearse(stage, control, challenger, plan(given.step_seconds))
    finally:
        home.set()  # people first: nobody is to find the door closed
        crowd.join(30)
        stop.set()
        stack.join(30)
        monitor.terminate()
    report |= {
        "searches": people.searches,
        "failed": people.failed,
        "minutes": (time.monotonic() - began_s) / 60,
    }
    report["next"] = train_on(stage, next_log(stage, world))
    report["as_expected"] = report["as_expected"] and report["next"]["closed"]
    report["minutes"] = (time.monotonic() - began_s) / 60
    artifacts.write_json(out / "rehearsal.json", report)
    page(stage, report)
    print(
        f"{report['searches']:,} searches, {report['failed']} not answered, "
        f"{report['minutes']:.1f} min: {out}/rehearsal.html"
    )
    return 0 if report["as_expected"] else 1


def _rehearse(stage: Stage, control: Path, challenger: Path, settings: RolloutConfig) -> dict[str, Any]:
    first = walk(stage, "crops", settings)
    shutil.copytree(stage.out / "readout", stage.out / "readout-crops")
    found = artifacts.read_json(stage.out / "readout-crops/readout.json")
    lifts = {
        name: {k: m[k] for k in ("lift", "low", "high", "p", "verdict", "control", "treatment")}
        for name, m in found["metrics"].items()
    }
    refused = bad_index(stage, control, challenger)
    print(f"== index of another encoder: {refused[:160]}", flush=True)
    time.sleep(65)  # a rollout counts refusals of at least its last minute, and that one was not its own
    rollouts, good = [first], first["phase"] == "promoted" and "refuses generation" in refused
    # Each is to be stopped by what it is bad at, in the canary.
    for name, version, rails in (
        ("untrained", untrained(stage, control), BY_WHAT_IS_FOUND),
        ("slow", slow(stage, challenger), ("p99", "errors")),
    ):
        stage.registry.move(
            "challenger",
            version,
            expected=stage.registry.holder("challenger"),
            reason="rehearsal: a bad release",
        )
        rollouts.append(walk(stage, name, settings))
        good &= rollouts[-1]["phase"] == "rolled back" and rollouts[-1]["trail"][-1]["reason"].startswith(
            rails
        )
    return {
        "rollouts": rollouts,
        "lifts": lifts,
        "users": found["users"],
        "bad_index": refused,
        "as_expected": good,
    }


def _own_registry(run: Path, out: Path) -> Registry:
    """A copy of the run's registry, so that the rehearsal promotes nothing of the run's own."""
    shutil.rmtree(out / "registry")
    source, own = (Registry(uri_of(folder / "registry"), "crops") for folder in (run, out))
    for alias in ("champion", "challenger"):
        version = source.holder(alias)
        assert version is not None, f"{source.uri}: no {alias}; run `make run` first"
        folder = source.download(version, out / f"from-run-{alias}")
        own_version = own.register(folder, tags={"checksums": layout.checksum(folder)})
        own.move(alias, own_version, expected=None, reason="rehearsal")
    return own


def _prometheus(out: Path, gateway: int) -> tuple[subprocess.Popen[bytes], str]:
    (port,) = launch.free_ports(1)
    scraped = {"job_name": "crops-gateway", "static_configs": [{"targets": [f"127.0.0.1:{gateway}"]}]}
    rules_files = [str(path) for path in (ROOT / "monitoring/rules").glob("*.yaml")]
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped], "rule_files": rules_files}
    (out / "prometheus.yml").write_text(json.dumps(config))
    command = [
        "prometheus",
        f"--config.file={out}/prometheus.yml",
        f"--storage.tsdb.path={out}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ), f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    sys.exit(main())
