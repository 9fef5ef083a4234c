"""The controller on a real registry and manifest: killed between any two writes it ends the same; a real
Prometheus is asked.
"""

import json
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crops.config.deploy import DeployConfig
from crops.config.register import RegisterConfig
from crops.config.rollout import AB, RolloutConfig, Step
from crops.errors import ConfigError, CropsError, ServiceError
from crops.experiment import features
from crops.experiment import rollout as rules
from crops.experiment.rollout import Measurements, Readout
from crops.release import document, manifest
from crops.release.layout import sha256
from crops.services.registry import Registry
from crops.stages.release import deploy
from crops.stages.trial import follow, rollout
from crops.stages.trial.rollout import Place
from crops.tables import artifacts
from tests import shared

PLAN = RolloutConfig(
    steps=(Step(coverage=0.1, dwell_s=10, min_users=1), Step(coverage=0.5, dwell_s=10, min_users=1)),
    ab=AB(min_s=10, max_s=1000, min_users=1),
    max_skew_s=1e9,
)
GATEWAY_USERS = 2_000


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two registered versions, champion 1 in service, challenger 2; Triton alone is not there."""
    uri = shared.new_registry(tmp_path / "registry")
    for version in (1, 2):
        folder = tmp_path / f"made-{version}"
        folder.mkdir()
        (folder / "file").write_text(str(version))
        artifacts.write_json(folder / "checksums.json", {"file": sha256(folder / "file")})
        Registry(uri, "crops").register(folder, tags={"checksums": sha256(folder / "checksums.json")})
    for alias, version in (("champion", "1"), ("challenger", "2")):
        Registry(uri, "crops").move(alias, version, expected=None, reason="test")
    monkeypatch.setattr(deploy.repository, "write", lambda *a, **k: None)
    monkeypatch.setattr(deploy.control, "load", lambda *a, **k: None)
    cfg = DeployConfig(manifest=str(tmp_path / "manifest.json"), releases=str(tmp_path / "releases"))
    deploy.release(Registry(uri, "crops"), "1", "control", cfg)
    return Place(
        folder=str(tmp_path / "rollout"),
        prometheus="http://127.0.0.1:1",
        registry=Registry(uri, "crops"),
        features=str(tmp_path / "features.json"),
        readout=None,
        deploy=cfg,
    )


def in_service(place):
    arms = {arm: held.uri[-1] for arm, held in manifest.read(place.deploy.manifest).arms.items()}
    experiments = features.parse(features.load(place.features))
    return arms, [e.coverage for e in experiments], place.registry.holder("champion")


def seen(verdict=None):
    rails = {g.name: {"control": 100.0, "treatment": 100.0} for g in PLAN.guardrails}
    counts = {g.name: {"control": 1e5, "treatment": 1e5} for g in PLAN.guardrails}
    read = Readout(verdict=verdict, reason="r", users=10) if verdict else None
    return Measurements(
        values=rails,
        events=counts,
        served={"treatment": frozenset(["models:/crops/2"])},
        rejected=0,
        users=10,
        readout=read,
    )


def walk(place, monkeypatch, verdict, now):
    """Looks until it is over; the clock moves 20 s a look."""
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen(verdict))
    phases = []
    for _ in range(8):
        now[0] += 20
        state, _ = rollout.step(place, PLAN, clock=lambda: now[0])
        phases.append((state.phase, *in_service(place)))
        if state.phase not in rules.RUNNING:
            break
    return phases


def test_canary_ab_promotion(place, monkeypatch):
    now = [1000.0]
    rollout.start(place, PLAN, name="e", clock=lambda: now[0])
    both, alone = {"control": "1", "treatment": "2"}, {"control": "2"}
    assert in_service(place) == (both, [0.1], "1")
    assert walk(place, monkeypatch, "better", now) == [
        ("canary", both, [0.5], "1"),
        ("ab", both, [1.0], "1"),
        ("promoted", alone, [], "2"),
    ]
    trail = [json.loads(line)["verdict"] for line in rollout.trail(place)]
    assert trail == ["wait", "advance", "advance", "promote"]


def test_a_worse_readout_rolls_back_and_the_champion_stays(place, monkeypatch):
    now = [1000.0]
    rollout.start(place, PLAN, name="e", clock=lambda: now[0])
    assert walk(place, monkeypatch, "worse", now) == [("rolled back", {"control": "1"}, [], "1")]
    with pytest.raises(ConfigError, match=r"champion and challenger"):
        place.registry.move("challenger", "1", expected="2", reason="test")
        rollout.start(place, PLAN, name="f", clock=lambda: now[0])


def test_a_start_at_which_the_following_controller_looks_meanwhile_has_started(place, monkeypatch):
    """The release takes its time to come; the chart's controller sees the new state and puts it in place."""
    fetched, looked = rollout._release, []

    def slowly(*release):
        if not looked:
            looked.append(True)
            rollout.step(place, PLAN, clock=lambda: 1001.0)
        fetched(*release)

    monkeypatch.setattr(rollout, "_release", slowly)
    assert rollout.start(place, PLAN, name="e", clock=lambda: 1000.0).phase == "canary"
    assert in_service(place) == ({"control": "1", "treatment": "2"}, [0.1], "1")


def test_aborted_by_hand_at_any_time(place):
    rollout.start(place, PLAN, name="e", clock=lambda: 1000.0)
    assert rollout.abort(place, PLAN, reason="no", clock=lambda: 1001.0).phase == "aborted"
    assert in_service(place) == ({"control": "1"}, [], "1")
    assert rollout.abort(place, PLAN, reason="again", clock=lambda: 1002.0).phase == "aborted"


def test_prometheus_that_is_down_waits_and_then_rolls_back(place):
    rollout.start(place, PLAN, name="e", clock=lambda: 1000.0)
    state, verdict = rollout.step(place, PLAN, clock=lambda: 1020.0)
    assert (verdict.kind, state.blind_since_s) == ("wait", 1020.0)
    assert "no answer from Prometheus" in verdict.reason
    state, verdict = rollout.step(place, PLAN, clock=lambda: 1020.0 + PLAN.blind_limit_s)
    assert state.phase == "rolled back"


def test_a_readout_of_the_trial_before_decides_nothing(place, monkeypatch, tmp_path):
    """It may say worse, and it may say better: both of another challenger."""
    path = tmp_path / "readout.json"
    asked, now = replace(place, readout=path), 1_000_000.0
    rollout.start(asked, PLAN, name="second", clock=lambda: now)

    def written(since_s, verdict):
        since = datetime.fromtimestamp(since_s, UTC).isoformat()
        artifacts.write_json(
            path,
            {
                "verdict": verdict,
                "reasons": ["r"],
                "primary": "ctr",
                "users": {"control": 5, "treatment": 5},
                "period": {"since": since},
            },
        )

    def read():
        return rollout._readout(path, rollout.load(asked))

    for verdict in ("worse", "better"):
        written(now - 5000, verdict)
        users, held = read()
        assert (users, held.verdict) == (None, "of an earlier trial")
        measured = replace(seen(), readout=held, users=10)
        state = replace(rollout.load(asked), phase="ab")
        told = rules.decide(PLAN, state, measured, now_s=now + 500)
        assert (told.kind, "before this rollout" in told.reason) == ("wait", True)
    written(now + 3, "better")
    assert read() == (10, Readout(verdict="better", reason="r", users=10))
    assert rollout.began(asked.folder).timestamp() == now
    assert rollout.began(str(tmp_path / "nothing")) is None


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def edited(place, **changes):
    """The features file as another hand would change it."""
    (one,) = features.parse(features.load(place.features))
    other = features.Experiment.parse(one.model_dump() | changes)
    Path(place.features).write_text(json.dumps(features.render([other])))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: edited(p, weights=(0.9, 0.1)), "weights is (0.5, 0.5) and was (0.9, 0.1)"),
        (lambda p: edited(p, salt="another"), "salt is"),
        (lambda p: Path(p.features).write_text("{"), "not JSON"),
        (lambda p: Path(p.features).write_bytes(b"\xff\xfe"), "can't decode"),
        (lambda p: Path(p.features).write_text("[]"), "expected a GrowthBook payload"),
    ],
)
def test_a_features_file_that_another_hand_changed_is_restored_and_the_trail_says_so(
    place, monkeypatch, change, says
):
    rollout.start(place, PLAN, name="e", clock=lambda: 1000.0)
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen())
    whole = Path(place.features).read_text()
    change(place)
    for at_s in (1001.0, 1002.0):
        state, verdict = rollout.step(place, PLAN, clock=lambda at_s=at_s: at_s)
        assert (state.phase, verdict.kind) == ("canary", "wait")
        assert Path(place.features).read_text() == whole
    trail = "".join(rollout.trail(place))
    assert trail.count("the features file was restored") == 1
    assert says in trail


@pytest.mark.parametrize(
    "broken",
    [
        lambda p: (Path(p.folder).parent / "readout.json").write_text("{"),
        lambda p: (Path(p.folder).parent / "readout.json").write_text('{"users": {}}'),
        lambda p: Path(p.deploy.manifest).write_text("rubbish"),
        lambda p: edited(p, coverage=1.0),
    ],
)
def test_what_it_cannot_read_leaves_it_blind_with_the_limit_and_a_line_in_the_trail(place, broken):
    place = replace(place, readout=Path(place.folder).parent / "readout.json")
    rollout.start(place, PLAN, name="e", clock=lambda: 1000.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout.prometheus, "ask", lambda *_a, **_k: [])
        broken(place)
        state, verdict = rollout.step(place, PLAN, clock=lambda: 1020.0)
        assert (verdict.kind, state.blind_since_s) == ("wait", 1020.0), verdict
        assert "no measurements" in "".join(rollout.trail(place))
        late = 1020.0 + PLAN.blind_limit_s
        measured = Measurements(problem="still")
        assert rules.decide(PLAN, state, measured, now_s=late).kind == rules.ROLL_BACK


def test_an_abort_request_that_says_nothing_ends_it_all_the_same(place):
    rollout.start(place, PLAN, name="e", clock=lambda: 1000.0)
    Path(place.of(rules.ABORT)).write_text("{")
    assert rollout.step(place, PLAN, clock=lambda: 1001.0)[0].phase == "aborted"


def test_killed_between_any_two_writes_it_ends_the_same_with_one_champion(place, monkeypatch):
    """The n-th write of a whole rollout does not come back, for every n; the same command then goes on to the
    same end.
    """
    real = {
        "state": document.write,
        "remove": document.remove,
        "manifest": deploy.manifest.write,
        "alias": Registry.move,
    }
    calls, at = [0], [0]

    def guarded(name):
        def write(*args, **kwargs):
            calls[0] += 1
            if calls[0] == at[0]:
                raise Killed
            found = real[name](*args, **kwargs)
            calls[0] += 1
            if calls[0] == at[0]:
                raise Killed
            return found

        return write

    monkeypatch.setattr(document, "write", guarded("state"))
    monkeypatch.setattr(document, "remove", guarded("remove"))
    monkeypatch.setattr(deploy.manifest, "write", guarded("manifest"))
    monkeypatch.setattr(Registry, "move", guarded("alias"))
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen("better"))
    before = manifest.read(place.deploy.manifest).arms["control"]
    for kill in range(1, 40):
        now, calls[0], at[0] = [1000.0], 0, kill
        killed = False
        for _ in range(12):
            try:
                if not rollout.started(place):
                    rollout.start(place, PLAN, name="e", salt="s", clock=lambda: now[0])  # noqa: B023
                now[0] += 20
                state, _ = rollout.step(place, PLAN, clock=lambda: now[0])  # noqa: B023
            except Killed:
                killed = True
                assert place.registry.holder("champion") in ("1", "2")
                continue
            _arms, coverages, champion = in_service(place)
            assert (champion == "2") == (state.phase == "promoted")
            assert not (state.phase == "promoted" and coverages)
            if state.phase == "promoted":
                break
        assert in_service(place) == ({"control": "2"}, [], "2"), kill
        if not killed:
            break
        shutil.rmtree(place.folder)
        Path(place.features).unlink()
        real["alias"](place.registry, "champion", "1", expected="2", reason="again")
        now_held = manifest.read(place.deploy.manifest)
        real["manifest"](place.deploy.manifest, replace(now_held.with_arm("control", before)))
    assert kill > 10, "every write was killed once"


def to_its_end_cut_short(place, monkeypatch):
    """Killed between the state that says promoted and the alias."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "_promote", lambda *_: (_ for _ in ()).throw(Killed))
        now = [1000.0]
        rollout.start(place, PLAN, name="e", clock=lambda: now[0])
        with pytest.raises(Killed):
            walk(place, monkeypatch, "better", now)
    assert (rollout.load(place).phase, place.registry.holder("champion")) == ("promoted", "1")


def test_a_promotion_that_a_kill_cut_short_is_finished_by_the_next_look(place, monkeypatch):
    to_its_end_cut_short(place, monkeypatch)
    rollout.step(place, PLAN, clock=lambda: 2000.0)
    assert in_service(place) == ({"control": "2"}, [], "2")


def test_the_next_challenger_meets_the_champion_of_a_promotion_that_was_cut_short(place, monkeypatch):
    to_its_end_cut_short(place, monkeypatch)
    place.registry.move("challenger", "1", expected="2", reason="the next one")
    assert rollout.start(place, PLAN, name="f", clock=lambda: 2000.0).control == "models:/crops/2"
    assert in_service(place) == ({"control": "2", "treatment": "1"}, [0.1], "2")


def test_who_goes_back_to_the_old_champion_after_a_promotion_is_not_overruled(place, monkeypatch):
    """docs/operations.md: `crops deploy --arm control`, while the chart's controller looks on."""
    now = [1000.0]
    rollout.start(place, PLAN, name="e", clock=lambda: now[0])
    assert walk(place, monkeypatch, "better", now)[-1][0] == "promoted"
    deploy.release(place.registry, "1", "control", place.deploy)
    place.registry.move("champion", "1", expected="2", reason="back")
    assert rollout.step(place, PLAN, clock=lambda: now[0] + 20)[0].phase == "promoted"
    assert in_service(place) == ({"control": "1"}, [], "1")


@pytest.fixture
def prometheus(tmp_path):
    """A real Prometheus that scrapes a gateway's metrics every second; treatment loses half of its clicks."""
    if shutil.which("prometheus") is None:
        pytest.skip("not run: prometheus is not installed (tests/install_system_parts)")
    from prometheus_client import start_http_server

    from serving.gateway.metrics import Metrics

    def port():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    metrics, exported, asked = Metrics(), port(), port()
    first, second = ("models:/crops/1", "a", 1.0), ("models:/crops/2", "b", 1.0)
    metrics.serve({"none": first, "control": first, "treatment": second}, 2)
    for arm in ("control", "treatment"):
        for phase in ("encode", "retrieve", "total"):
            metrics.seconds.labels(arm, phase)
        metrics.requests.labels(arm, "ok")
    for user in range(GATEWAY_USERS):
        metrics.reach.add("e", ("control", "treatment")[user % 2], f"user-{user}")
        metrics.reach.add("another", "control", f"user-{-user}")
    server, _thread = start_http_server(exported, addr="127.0.0.1", registry=metrics.registry)
    scraped = {"job_name": "gateway", "static_configs": [{"targets": [f"127.0.0.1:{exported}"]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb",
        f"--web.listen-address=127.0.0.1:{asked}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stop = threading.Event()

    def traffic():
        while not stop.wait(0.2):
            for arm, clicks in (("control", 10), ("treatment", 5)):
                metrics.requests.labels(arm, "ok").inc(50)
                metrics.searches.labels(arm).inc(50)
                metrics.impressions.labels(arm).inc(500)
                metrics.clicks.labels(arm).inc(clicks)
                metrics.long_plays.labels(arm).inc(4)
                metrics.reformulations.labels(arm).inc(5)
                for _ in range(50):
                    metrics.seconds.labels(arm, "total").observe(0.01)

    thread = threading.Thread(target=traffic)
    thread.start()
    yield f"http://127.0.0.1:{asked}"
    stop.set()
    thread.join()
    process.terminate()
    process.wait(10)
    server.shutdown()


@pytest.mark.prometheus
def test_a_real_prometheus_answers_every_guardrail_and_lost_clicks_roll_back(place, prometheus, tmp_path):
    readout = {
        "verdict": "unknown",
        "reasons": ["too few"],
        "primary": "ctr",
        "users": {"control": 50, "treatment": 50},
        "period": {"since": datetime.fromtimestamp(time.time(), UTC).isoformat()},
    }
    artifacts.write_json(tmp_path / "readout.json", readout)
    asked = replace(place, prometheus=prometheus, readout=tmp_path / "readout.json")
    began_s = time.time() - 60
    rollout.start(asked, PLAN, name="e", clock=lambda: began_s)
    for _ in range(40):
        found = rollout.measure(asked, PLAN, rollout.load(asked), now_s=time.time())
        if found.problem is None and all(
            (found.events[g.name]["treatment"] or 0) >= g.min_events for g in PLAN.guardrails
        ):
            break
        time.sleep(0.5)
    assert found.problem is None
    for rail in PLAN.guardrails:
        assert found.values[rail.name].keys() == {"control", "treatment"}
        assert None not in found.values[rail.name].values(), rail.name
    assert found.served["treatment"] == {"models:/crops/2"}
    assert found.users == pytest.approx(GATEWAY_USERS, rel=0.3), "more than the 100 of the readout"
    for _ in range(60):  # until the loss is beyond chance
        state, verdict = rollout.step(asked, PLAN)
        if state.phase not in rules.RUNNING:
            break
        time.sleep(0.5)
    assert state.phase == "rolled back"
    assert verdict.reason.startswith("ctr: "), verdict


@pytest.mark.parametrize("left", ["", '{"at": "2026-01-01T0'])
def test_a_kill_between_state_and_trail_loses_no_line(place, monkeypatch, left):
    """The state is there, its line is not or is torn: the next look writes it, once."""
    rollout.start(place, PLAN, name="one")
    trail = Path(place.of(rules.AUDIT))
    whole = trail.read_text()
    trail.write_text(left)
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen())
    for _ in range(3):
        rollout.step(place, PLAN)
    assert trail.read_text() == whole


@pytest.fixture(params=["path", "s3"])
def anywhere(request, place):
    """The rollout's place, with its state and its features on this disk or in a bucket."""
    if request.param == "path":
        return place
    url = request.getfixturevalue("bucket")
    return replace(place, folder=f"{url}/rollout", features=f"{url}/rollout/features.json")


def test_of_two_controllers_one_writes_and_the_other_goes_on_from_there(anywhere, monkeypatch):
    """The second one decides between the first one's measurements and its decision."""
    now, inner = [1000.0], []
    rollout.start(anywhere, PLAN, name="one", clock=lambda: now[0])

    def meanwhile(*_a, **_k):
        if not inner:
            inner.append(None)
            inner[0] = rollout.step(anywhere, PLAN, clock=lambda: now[0] - 1)
        return seen()

    monkeypatch.setattr(rollout, "measure", meanwhile)
    now[0] += 20
    state, verdict = rollout.step(anywhere, PLAN, clock=lambda: now[0])
    assert inner[0][1].kind == rules.ADVANCE
    assert verdict.kind == rules.WAIT
    assert verdict.reason.startswith("another controller was first")
    assert state == inner[0][0] == rollout.load(anywhere)
    assert state.step == 1, "the step was taken once"
    assert [json.loads(line)["verdict"] for line in rollout.trail(anywhere)] == ["wait", "advance"]
    now[0] += 20
    assert rollout.step(anywhere, PLAN, clock=lambda: now[0])[0].phase == "ab", "it goes on from there"


def test_of_two_that_start_one_does_and_its_salt_is_the_one_that_counts(anywhere, monkeypatch):
    real, inner = document.remove, []

    def meanwhile(url):
        if not inner:
            inner.append(None)
            inner[0] = rollout.start(anywhere, PLAN, name="first", salt="a")
        real(url)

    monkeypatch.setattr(document, "remove", meanwhile)
    with pytest.raises(document.Conflict, match="another writer changed it"):
        rollout.start(anywhere, PLAN, name="second", salt="b")
    assert rollout.load(anywhere) == inner[0]
    (one,) = features.parse(features.load(anywhere.features))
    assert (one.name, one.salt) == ("first", "a")


def test_an_abort_by_hand_ends_what_a_controller_moves_meanwhile(anywhere, monkeypatch):
    now = [1000.0]
    rollout.start(anywhere, PLAN, name="e", clock=lambda: now[0])
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen())
    real, moved = document.write, []

    def meanwhile(url, content, held):
        if url.endswith(rules.STATE) and not moved:
            moved.append(True)
            now[0] += 20
            moved[0] = rollout.step(anywhere, PLAN, clock=lambda: now[0])[0]
        return real(url, content, held)

    monkeypatch.setattr(document, "write", meanwhile)
    assert rollout.abort(anywhere, PLAN, reason="no", clock=lambda: now[0]).phase == "aborted"
    assert moved[0].step == 1
    assert in_service(anywhere) == ({"control": "1"}, [], "1")
    assert [json.loads(line)["verdict"] for line in rollout.trail(anywhere)] == [
        "wait",
        "advance",
        "roll back",
    ]


def test_a_url_without_compare_and_set_is_refused(place):
    with pytest.raises(ConfigError, match="expected a path or s3://"):
        rollout.place("memory://x/state", place.deploy, prometheus="", registry=place.registry, readout=None)


def test_a_rollout_without_a_champion_in_service_is_refused(place):
    empty = replace(
        place,
        deploy=place.deploy.model_copy(update={"manifest": str(Path(place.folder).parent / "other.json")}),
    )
    with pytest.raises(ConfigError, match="crops deploy --arm control"):
        rollout.start(empty, PLAN, name="one")
    assert not manifest.read(empty.deploy.manifest).arms


def test_a_readout_on_another_metric_decides_nothing():
    state = rules.State(
        experiment="e",
        control="models:/crops/1",
        treatment="models:/crops/2",
        started_s=0,
        entered_s=0,
        phase="ab",
    )
    found = seen("better")
    found = replace(found, readout=replace(found.readout, primary="lpr"))
    verdict = rules.decide(PLAN, state, found, now_s=100)
    assert verdict.kind == rules.WAIT
    assert "--metric ctr" in verdict.reason


def quick():
    steps = tuple(step.model_copy(update={"dwell_s": 0.01}) for step in PLAN.steps)
    ab = PLAN.ab.model_copy(update={"min_s": 0.01})
    return PLAN.model_copy(update={"steps": steps, "ab": ab, "poll_s": 0.02})


def followed(place, out):
    asked = {"prometheus": place.prometheus, "registry": place.registry.uri, "readout": None}
    return follow.run(place.folder, out, quick(), place.deploy, RegisterConfig(), name="e", **asked)


def test_one_task_follows_it_to_the_end_and_a_second_one_goes_on_where_the_first_was_killed(
    place, monkeypatch, tmp_path
):
    looks = []

    def killed(*_a, **_k):
        looks.append(1)
        if len(looks) == 2:
            raise Killed
        return seen("better")

    monkeypatch.setattr(rollout, "measure", killed)
    with pytest.raises(Killed):
        followed(place, tmp_path / "out")
    report = followed(place, tmp_path / "out")
    assert report.numbers["promoted"] == 1
    assert artifacts.read_json(tmp_path / "out/rollout.json")["phase"] == "promoted"
    trail = [json.loads(line)["verdict"] for line in rollout.trail(place)]
    assert [v for v in trail if v != "wait"] == ["advance", "advance", "promote"]


def test_a_look_that_fails_is_made_again_and_not_for_ever(place, monkeypatch, tmp_path):
    """The bucket of the state does not answer for a while; then never again."""
    looks, step = [], rollout.step

    def away(*given):
        looks.append(1)
        if len(looks) == 2:
            raise ServiceError("s3://trial: no answer")
        return step(*given)

    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen("better"))
    monkeypatch.setattr(rollout, "step", away)
    assert followed(place, tmp_path / "out").numbers["promoted"] == 1
    assert len(looks) > 2

    def gone(*_given):
        raise ServiceError("s3://trial: no answer")

    monkeypatch.setattr(rollout, "step", gone)
    plan = quick().model_copy(update={"blind_limit_s": 0.1})
    with pytest.raises(ServiceError, match="no answer"):
        follow.until_over(place, plan, name="e", seen=lambda *_: None)


def test_next_weeks_challenger_under_the_same_name_is_tried_anew(place, monkeypatch, tmp_path):
    """And the same run again, of a challenger that was decided on, says what was decided."""
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen("better"))
    followed(place, tmp_path / "out")
    before = rollout.trail(place)
    assert followed(place, tmp_path / "again").numbers["promoted"] == 1
    assert rollout.trail(place) == before
    folder = tmp_path / "made-3"
    folder.mkdir()
    artifacts.write_json(folder / "checksums.json", {})
    third = place.registry.register(folder, tags={"checksums": sha256(folder / "checksums.json")})
    place.registry.move("challenger", third, expected="2", reason="test")
    of_third = replace(seen("worse"), served={"treatment": frozenset([f"models:/crops/{third}"])})
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: of_third)
    with pytest.raises(CropsError, match="e was not promoted: rolled back"):
        followed(place, tmp_path / "third")
    assert rollout.load(place).treatment == f"models:/crops/{third}"


def test_a_challenger_that_is_not_promoted_fails_its_run_with_the_reason(place, monkeypatch, tmp_path):
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen("worse"))
    with pytest.raises(CropsError, match=r"e was not promoted: rolled back .*worse"):
        followed(place, tmp_path / "out")
    assert artifacts.read_json(tmp_path / "out/rollout.json")["phase"] == "rolled back"


def test_every_question_is_asked_of_this_installation_alone(place, monkeypatch):
    asked = []

    def ask(url, query, **_):
        asked.append(query)
        return []

    monkeypatch.setattr(rollout.prometheus, "ask", ask)
    plan = RolloutConfig(matchers='namespace="prod",installation="shop"')
    started = rollout.start(place, plan, name="autumn")
    rollout.measure(place, plan, started, now_s=started.started_s + 3600)
    of_arms = [query for query in asked if "arm=" in query]
    assert len(of_arms) >= 2 * 2 * len(plan.guardrails)
    assert all(query.count("arm=") == query.count(plan.matchers) for query in of_arms)
    assert [query for query in asked if "namespace" not in query] == ["time()"]


def test_a_plan_that_was_cut_short_while_it_runs_is_said_and_leaves_it_blind(place, monkeypatch):
    now = [1000.0]
    rollout.start(place, PLAN, name="r", clock=lambda: now[0])
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: seen())
    now[0] += 20
    state, _ = rollout.step(place, PLAN, clock=lambda: now[0])
    assert state.step == 1
    short = PLAN.model_copy(update={"steps": PLAN.steps[:1]})
    state, verdict = rollout.step(place, short, clock=lambda: now[0])
    assert (state.phase, verdict.kind) == ("canary", "wait")
    assert "may not be cut short" in verdict.reason
    now[0] += 1000
    assert rollout.step(place, short, clock=lambda: now[0])[0].phase == "rolled back"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phase", "later"),
        ("step", "1"),
        ("step", -1),
        ("started_s", None),
        ("started_s", 1e300),
        ("entered_s", 1e999),
        ("facts", []),
        ("facts", {"salt": "s"}),
        ("last", 1),
        ("more", 1),
    ],
)
def test_a_state_that_says_something_else_is_named(place, key, value):
    rollout.start(place, PLAN, name="r", clock=lambda: 1000.0)
    path = Path(place.of(rules.STATE))
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CropsError, match=r"rollout\.json: not a rollout's state"):
        rollout.step(place, PLAN)


def test_an_abort_request_that_comes_too_late_aborts_nothing_and_says_nothing_else(place):
    rollout.start(place, PLAN, name="r", clock=lambda: 1000.0)
    rollout.abort(place, PLAN, reason="done")
    document.put(place.of(rules.ABORT), b'{"reason": "late"}')
    state, verdict = rollout.step(place, PLAN)
    assert (state.phase, verdict.kind) == ("aborted", "wait")
    assert not Path(place.of(rules.ABORT)).exists()
    assert "late" not in "".join(rollout.trail(place))
