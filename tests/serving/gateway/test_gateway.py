"""The gateway before a real Triton: the contract's calls, refusals, releases that must not be served, a
Triton that dies.
"""

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crops.evaluation import rank
from crops.experiment import features, reach
from crops.experiment.rollout import ABORT, AUDIT, STATE
from crops.release import document, manifest, milvus
from crops.release.layout import sha256
from crops.release.manifest import Manifest
from serving import reformulation, shown
from serving.events import ids
from serving.events.compact import compact, read_all
from serving.events.log import EventLogFull, SegmentLog
from serving.events.records import Search
from serving.gateway import app as http
from serving.gateway import errors, service
from serving.gateway.service import JsonLines, Service
from serving.gateway.settings import Settings
from tests.serving import releases as toys

pytestmark = pytest.mark.triton
SECRET = b"s" * 32
NOW = "2026-11-25T06:00:00Z"


class Gateway:
    """A gateway in this process: its service, and a client that speaks HTTP to its application."""

    def __init__(self, settings, log=True, clock=time.time):
        self.settings, self.with_log, self.clock = settings, log, clock

    async def __aenter__(self):
        log = SegmentLog(self.settings.events, replica="a") if self.with_log else None
        state = reformulation.InProcess(window_s=self.settings.window_s)
        seen = shown.InProcess(within_s=self.settings.events_within_s)
        self.service = Service(
            self.settings, secret=SECRET, log=log, reformulations=state, shown=seen, clock=self.clock
        )
        self.app = http.create(self.settings, self._made, token="token")
        self.app.state.service = self.service
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url="http://localhost"
        )
        await self.service.look()
        return self

    async def _made(self):
        return self.service

    async def __aexit__(self, *_):
        await self.client.aclose()
        await self.service.close()

    async def search(self, query="subject1", user="u", k=3, **more):
        return await self.client.post("/v1/search", json={"query": query, "user_id": user, "k": k, **more})


def settings_for(folder, triton, **more):
    values = {
        "manifest": str(folder / "manifest.json"),
        "triton": triton.grpc,
        "state": str(folder),
        "events": str(folder / "events"),
        "deadline_s": 5.0,
        "encode_timeout_s": 2.0,
        "ranked_extra": 2,
        **more,
    }
    return Settings.parse(values)


@pytest.fixture
def gateway(tmp_path, triton, releases):
    manifest.write(
        str(tmp_path / "manifest.json"),
        Manifest(generation=1, arms={"control": releases[0], "treatment": releases[1]}),
    )
    return Gateway(settings_for(tmp_path, triton))


def run(work):
    asyncio.run(work)


def event(search_id, video_id, kind="click", **more):
    return {"search_id": search_id, "video_id": video_id, "type": kind, "ts": NOW, **more}


def test_a_search_is_what_encoder_and_index_say_and_its_record_is_on_the_disk(gateway, releases):
    async def work():
        async with gateway:
            answer = (await gateway.search("Subject1 ", k=3)).json()
            served = gateway.service.holder.arms["control"]
            from crops.release.encoder import OnnxEncoder

            vector = OnnxEncoder(Path(releases[0].files), threads=1).encode(["subject1"])
            scores, rows = served.index.search(vector, 3)
            assert [r["video_id"] for r in answer["results"]] == [served.index.ids[r] for r in rows[0]]
            np.testing.assert_allclose([r["score"] for r in answer["results"]], scores[0], atol=1e-5)
            assert answer["arm"] is None
            assert answer["release"] == "models:/crops/1"
            assert all(r["caption"] for r in answer["results"])
            (record,) = read_all(gateway.settings.events)
            assert isinstance(record, Search)
            assert (record.search_id, record.query, record.user_id) == (answer["search_id"], "Subject1 ", "u")
            assert [r.position for r in record.results] == [0, 1, 2, None, None], (
                "two more were ranked and not exposed"
            )

    run(work())


def test_with_fusion_the_answer_is_of_both_rankings(tmp_path, triton, releases):
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": releases[0]}))

    async def work():
        async with Gateway(settings_for(tmp_path, triton, fusion=True, ranked_extra=0)) as gateway:
            from crops.release.encoder import OnnxEncoder

            served = gateway.service.holder.arms["control"]
            documents = pq.read_table(Path(releases[0].files) / "documents").to_pylist()
            text = {row["doc_id"]: row["text"] for row in documents}
            query, k = text[served.index.ids[-1]].split(" | ")[0], 3
            answer = (await gateway.search(query, k=k)).json()
            vector = OnnxEncoder(Path(releases[0].files), threads=1).encode([query])
            dense = served.index.search(vector, k)[1][0].tolist()
            words = rank.bm25([query], [text[i] for i in served.index.ids], k)[0].tolist()
            both = {r: sum(1 / (61 + of.index(r)) for of in (dense, words) if r in of) for r in dense + words}
            best = sorted((-score, served.index.ids[row]) for row, score in both.items() if row >= 0)[:k]
            assert [-score for score, _ in best] == pytest.approx(
                [r["score"] for r in answer["results"]], 1e-4
            )
            assert answer["results"][0]["video_id"] == best[0][1]

    run(work())


def test_events_are_durable_counted_once_and_become_the_tables(gateway, tmp_path):
    async def work():
        async with gateway:
            found = (await gateway.search(k=3)).json()
            first, second = (r["video_id"] for r in found["results"][:2])
            sent = [
                event(found["search_id"], first),
                event(found["search_id"], first),
                event(found["search_id"], second, "play", play_s=3.0),
                event(found["search_id"], second, "play", play_s=40.0),
                event(found["search_id"], "never shown"),
            ]
            answer = await gateway.client.post("/v1/events", json=sent)
            assert (answer.status_code, answer.json()) == (202, {"accepted": 5})
            await asyncio.sleep(0.1)  # counting is beside the answer
            text = (await gateway.client.get("/metrics")).text
            assert 'crops_clicks_total{arm="none"} 1.0' in text, "once, and of what was shown"
            assert 'crops_long_plays_total{arm="none"} 1.0' in text
            assert 'crops_impressions_total{arm="none"} 3.0' in text
            assert found["search_id"] not in text
        (tmp_path / "tables").mkdir()
        tally = compact([gateway.settings.events], tmp_path / "tables")
        assert (tally.searches, tally.results, dict(tally.orphans)) == (
            1,
            5,
            {"video was not exposed in the search": 1},
        )
        rows = {r["video_id"]: r for r in pq.read_table(tmp_path / "tables/results").to_pylist()}
        assert rows[first]["clicked"]
        assert rows[second]["play_s"] == 40.0
        assert sum(r["stage"] == "ranked" for r in rows.values()) == 2

    run(work())


def test_a_manifest_that_is_put_back_is_followed_whatever_its_number(gateway, releases):
    """From a backup: another release under the same generation, then a lower one; their claims are gone."""
    path = Path(gateway.settings.manifest)

    def put(generation, release):
        for claim in path.parent.glob("manifest.json.*"):
            claim.unlink()
        path.write_text(Manifest(generation=generation, arms={"control": release}).to_json())

    async def work():
        async with gateway:
            for generation, release in ((7, releases[0]), (7, releases[1]), (3, releases[0])):
                put(generation, release)
                await gateway.service.look()
                told = (await gateway.client.get("/v1/release")).json()
                assert (told["generation"], told["problem"]) == (generation, None)
                assert told["arms"]["control"]["release"] == release.uri
                assert (await gateway.search()).json()["release"] == release.uri

    run(work())


def test_events_that_are_repeated_invented_or_late_move_no_counter(gateway):
    now = [1_800_000_000.0]
    gateway.clock = lambda: now[0]

    async def work():
        async with gateway:
            found = (await gateway.search(k=3)).json()
            search, (first, second, third) = found["search_id"], (r["video_id"] for r in found["results"])
            sent = [
                event(search, first),
                event(search, first, "play", play_s=86400),
                event(search, second, "play", play_s=1),
                event(search, "never shown"),
                event(search, "never shown", "play", play_s=99),
            ]
            for _ in range(40):
                answer = await gateway.client.post("/v1/events", json=sent * 25)
                assert answer.status_code == 202
            await gateway.client.post("/v1/events", json=[event(search, second, "play", play_s=40)])
            await asyncio.sleep(0.1)
            text = (await gateway.client.get("/metrics")).text
            assert 'crops_clicks_total{arm="none"} 1.0' in text
            assert 'crops_long_plays_total{arm="none"} 2.0' in text, "a short play does not use up a long one"
            now[0] += gateway.settings.events_within_s - 1
            late = [event(search, third)]
            assert (await gateway.client.post("/v1/events", json=late)).status_code == 202
            now[0] += 2
            answer = await gateway.client.post("/v1/events", json=late)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_search")

    run(work())


def test_a_change_that_the_controller_would_refuse_the_gateway_refuses_too(tmp_path, triton, releases):
    """Weights and salt of a running experiment: nobody moves to the other arm."""

    async def work():
        async with in_an_experiment(tmp_path, triton, releases) as gateway:
            path = Path(gateway.settings.features)
            (one,) = features.parse(features.load(path))

            async def arms():
                assigner = gateway.service._assigner
                return [assigner.assign(f"u{n}").arm for n in range(500)]

            async def changed(**to):
                path.write_text(json.dumps(features.render([features.Experiment(**one.model_dump() | to)])))
                await gateway.service.look()
                return (await gateway.client.get("/v1/release")).json()["problem"]

            before = await arms()
            for change in ({"weights": (0.9, 0.1)}, {"salt": "t"}, {"coverage": 0.5}):
                assert next(iter(change)) in await changed(**change)
                assert await arms() == before
            assert await changed() is None, "put right, the problem is gone"

    run(work())


def test_features_state_and_abort_request_are_where_their_urls_say(tmp_path, triton, releases, bucket):
    """The same experiment from a bucket: assigned by, shown, and asked to end."""
    held = in_an_experiment(tmp_path, triton, releases)
    features_file = Path(held.settings.features).read_bytes()
    url = f"{bucket}/rollout"
    document.put(f"{url}/features.json", features_file)
    line = json.dumps({"verdict": "wait", "reason": "started"})
    document.put(f"{url}/{STATE}", json.dumps({"experiment": "e", "phase": "canary", "step": 0}).encode())
    document.put(f"{url}/{AUDIT}", f"{line}\n".encode())
    settings = settings_for(tmp_path, triton, features=f"{url}/features.json", rollout=url)

    async def work():
        async with Gateway(settings) as gateway:
            assert {gateway.service._assigner.assign(f"u{n}").arm for n in range(50)} == {
                "control",
                "treatment",
            }
            shown = (await gateway.client.get("/v1/experiment")).json()
            assert (shown["rollout"]["phase"], shown["coverage"]) == ("canary", 1.0)
            assert [move["reason"] for move in shown["rollout"]["trail"]] == ["started"]
            asked = {"authorization": "Bearer token"}
            told = await gateway.client.post("/v1/admin/abort", json={"reason": "slow"}, headers=asked)
            assert told.status_code == 200, told.text
            assert json.loads(document.read(f"{url}/{ABORT}").content) == {"reason": "slow"}
            document.put(f"{url}/features.json", json.dumps(features.render([])).encode())
            await gateway.service.look()
            assert gateway.service._assigner.assign("u1").arm is None

    run(work())


def test_the_console_and_what_it_compares_are_for_those_who_may(tmp_path, triton, releases):
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": releases[0]}))
    body = {"query": "subject1", "k": 2}

    async def work(host, token, **more):
        async with Gateway(settings_for(tmp_path, triton, host=host, **more), log=False) as gateway:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return await gateway.client.post("/v1/compare", json=body, headers=headers)

    for host, token, status in (
        ("127.0.0.1", None, 200),
        ("0.0.0.0", None, 401),
        ("0.0.0.0", "wrong", 401),
        ("0.0.0.0", "token", 200),
    ):
        assert asyncio.run(work(host, token)).status_code == status
    assert asyncio.run(work("127.0.0.1", None)).json()["arms"]["control"]["results"][0]["learnt"]
    slow = asyncio.run(work("127.0.0.1", None, deadline_s=1e-6))
    assert (slow.status_code, slow.json()["error"]["code"]) == (503, "deadline")


@pytest.mark.parametrize(
    ("host", "hosts", "called", "status"),
    [
        ("127.0.0.1", [], "localhost:8080", 200),
        ("127.0.0.1", [], "[::1]:8080", 200),
        ("127.0.0.1", [], "rebound.example:8080", 400),
        ("127.0.0.1", ["console.example"], "console.example", 200),
        ("0.0.0.0", [], "any.example", 200),
        ("0.0.0.0", ["console.example"], "other.example", 400),
    ],
)
def test_the_host_that_a_request_names_is_checked(tmp_path, triton, host, hosts, called, status):
    async def work():
        async with Gateway(settings_for(tmp_path, triton, host=host, hosts=hosts), log=False) as gateway:
            return await gateway.client.get("/healthz", headers={"host": called})

    assert asyncio.run(work()).status_code == status


def test_every_answer_is_for_no_frame_and_a_page_runs_its_own_script_alone(gateway):
    async def work():
        async with gateway:
            for path in ("/", "/experiment", "/report", "/healthz", "/metrics", "/v1/release", "/nowhere"):
                headers = (await gateway.client.get(path)).headers
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["x-frame-options"] == "DENY"
            for path in ("/", "/experiment"):
                policy = (await gateway.client.get(path)).headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert policy.count("'sha256-") == 1
                assert "script-src 'unsafe" not in policy

    run(work())


def test_what_is_not_the_contract_is_refused_in_its_words(gateway):
    async def work():
        async with gateway:
            mine = (await gateway.search()).json()["search_id"]
            foreign = ids.make(b"another" * 5, 1)
            cases = [
                ("/v1/search", {"query": "", "user_id": "u"}, 400, "malformed"),
                ("/v1/search", {"query": "q"}, 400, "malformed"),
                ("/v1/search", {"query": "q", "user_id": "u", "more": 1}, 400, "malformed"),
                ("/v1/search", {"query": "q" * 2000, "user_id": "u"}, 413, "too_large"),
                ("/v1/search", {"query": "\ufdfa" * 1024, "user_id": "u"}, 413, "too_large"),  # x 18
                ("/v1/search", {"query": " \u200b?! ", "user_id": "u"}, 400, "malformed"),
                ("/v1/search", {"query": "q", "user_id": "u", "k": 101}, 413, "too_large"),
                ("/v1/events", [event(foreign, "v")], 404, "unknown_search"),
                ("/v1/events", [event(mine, "v", "share")], 400, "malformed"),
                ("/v1/events", [event(mine, "v", "play", play_s=-1)], 400, "malformed"),
                ("/v1/events", [event(mine, "v") | {"ts": "2026-11-25T06:00:00"}], 400, "malformed"),
                ("/v1/events", [event(mine, "v")] * 1001, 413, "too_large"),
                ("/v1/events", "text", 400, "malformed"),
                ("/v1/nothing", {}, 404, "not_found"),
                ("/v1/admin/look", {}, 401, "unauthorised"),
            ]
            for path, body, status, code in cases:
                answer = await gateway.client.post(path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (path, body)
                assert set(answer.json()) == {"error"}
            large = await gateway.client.post("/v1/search", content=b"x" * (2 << 20))
            assert large.status_code == 413
            mixed = await gateway.client.post("/v1/events", json=[event(mine, "v"), event(foreign, "v")])
            assert mixed.status_code == 404
            assert len(list(read_all(gateway.settings.events))) == 1, "nothing of a refused list was taken"
            looked = await gateway.client.post("/v1/admin/look", headers={"authorization": "Bearer token"})
            assert looked.json() == {"generation": 1, "problem": None}

    run(work())


def test_without_a_release_it_says_so_and_is_alive(tmp_path, triton):
    async def work():
        async with Gateway(settings_for(tmp_path, triton)) as gateway:
            answer = await gateway.search()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_release")
            assert answer.headers["retry-after"] == "1"
            assert (await gateway.client.get("/readyz")).status_code == 503
            assert (await gateway.client.get("/healthz")).status_code == 200

    run(work())


def test_arms_see_their_release_and_reformulations_count_for_the_arm_of_the_first_search(
    tmp_path, triton, releases
):
    now = [1_800_000_000.0]

    async def work():
        trial = in_an_experiment(tmp_path, triton, releases)
        trial.clock = lambda: now[0]
        async with trial as gateway:
            seen = {}
            for n in range(40):
                answer = (await gateway.search(user=f"user {n}")).json()
                seen.setdefault(answer["arm"], set()).add(answer["release"])
                assert ids.verify(SECRET, answer["search_id"]).arm == answer["arm"]
            assert seen == {"control": {"models:/crops/1"}, "treatment": {"models:/crops/2"}}
            arm = (await gateway.search(user="someone")).json()["arm"]
            for wait_s, query in ((10, "SUBJECT1"), (10, "subject2"), (91, "subject3")):
                now[0] += wait_s
                await gateway.search(query, user="someone")
            text = (await gateway.client.get("/metrics")).text
            assert f'crops_reformulations_total{{arm="{arm}"}} 2.0' in text, (
                "both searches of the first query; the last one comes too late"
            )
            assert sum(reached(text).values()) == pytest.approx(41, rel=0.4)
            assert reached(text).keys() == {"control", "treatment"}
            Path(gateway.settings.features).write_text(json.dumps(features.render([])))
            await gateway.service.look()
            assert reached((await gateway.client.get("/metrics")).text) == {}, "the trial is over"

    run(work())


def reached(text):
    """Arm -> the users that a gateway's metrics stand for."""
    ranks = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name == "crops_experiment_users_rank" else ():
            ranks.setdefault(sample.labels["arm"], []).append(sample.value)
    return {arm: reach.users(held) for arm, held in ranks.items()}


def broken(release, folder, change):
    shutil.copytree(release.files, folder)
    change(folder)
    return toys.named(folder, 9)


def sealed(folder):
    listed = json.loads((folder / "checksums.json").read_text())
    (folder / "checksums.json").write_text(json.dumps({name: sha256(folder / name) for name in listed}))


def other_index(other):
    def change(folder):
        for name in ("index.faiss", "index.json"):
            shutil.copyfile(Path(other.files) / name, folder / name)
        sealed(folder)

    return change


def near_index(folder):
    """As of an encoder that began with the same weights: every document is still its own nearest, at a
    product of about 0.8.
    """
    from crops.release import index
    from crops.release.encoder import OnnxEncoder

    ids = tuple(pq.read_table(folder / "doc_ids.parquet")["doc_id"].to_pylist())
    texts = dict(
        zip(
            *pq.read_table(folder / "documents", columns=["doc_id", "text"]).to_pydict().values(), strict=True
        )
    )
    vectors = OnnxEncoder(folder, threads=1).encode([texts[i] for i in ids])
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    moved = vectors + 0.75 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    made = index.build(
        (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32),
        ids,
        factory="Flat",
        nprobe=1,
        ef_search=16,
    )
    about = json.loads((folder / "index.json").read_text())
    about["sha256"] = index.save(made, folder / "index.faiss")
    (folder / "index.json").write_text(json.dumps(about))
    sealed(folder)


def other_probes(folder):
    about = json.loads((folder / "fingerprint.json").read_text())
    about["vectors"] = np.roll(np.array(about["vectors"]), 1, axis=1).tolist()
    (folder / "fingerprint.json").write_text(json.dumps(about))
    sealed(folder)


def flipped(folder):
    data = bytearray((folder / "index.faiss").read_bytes())
    data[-1] ^= 1
    (folder / "index.faiss").write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("index", "index"),
        ("near", "index"),
        ("probes", "fingerprint"),
        ("byte", "checksum"),
        ("gone", "checksum"),
    ],
)
def test_a_release_that_is_not_whole_or_not_of_one_piece_is_refused_and_the_old_one_goes_on(
    tmp_path, triton, releases, name, reason
):
    changes = {
        "index": other_index(releases[1]),
        "near": near_index,
        "probes": other_probes,
        "byte": flipped,
        "gone": lambda folder: (folder / "doc_ids.parquet").unlink(),
    }
    url = str(tmp_path / "manifest.json")
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))
    # Not of what is served: that would be known by its checksum and not be read again.
    source = releases[0] if name in ("index", "near", "probes") else releases[1]
    # Triton has the encoder under the name of the sound release: it is the same encoder.
    bad = replace(broken(source, tmp_path / "bad", changes[name]), model=source.model)

    async def work():
        async with Gateway(settings_for(tmp_path, triton)) as gateway:
            before = (await gateway.search()).json()["results"]
            manifest.write(url, Manifest(generation=2, arms={"control": bad}))
            await gateway.service.look()
            text = (await gateway.client.get("/metrics")).text
            assert f'crops_release_rejected_total{{reason="{reason}"}} 1.0' in text
            assert (await gateway.client.get("/v1/release")).json()["generation"] == 1
            assert (await gateway.search()).json()["results"] == before
            manifest.write(url, Manifest(generation=3, arms={"control": releases[1]}))
            await gateway.service.look()
            assert (await gateway.search()).json()["release"] == "models:/crops/2"

    run(work())


def test_a_swap_under_load_drops_nothing(gateway, tmp_path, releases):
    async def work():
        async with gateway:
            stop, outcomes = asyncio.Event(), []

            async def searcher(n):
                i = 0
                while not stop.is_set():
                    i += 1
                    answer = await gateway.search(f"subject{n} {i}")
                    outcomes.append((answer.status_code, answer.json().get("release")))

            tasks = [asyncio.create_task(searcher(n)) for n in range(4)]
            for generation in range(2, 6):
                await asyncio.sleep(0.3)
                arms = {"control": releases[generation % 2]}
                manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=generation, arms=arms))
                await gateway.service.look()
            stop.set()
            await asyncio.gather(*tasks)
            assert {status for status, _ in outcomes} == {200}
            assert {release for _, release in outcomes} == {"models:/crops/1", "models:/crops/2"}

    run(work())


def test_a_full_disk_is_503_and_counted(gateway, monkeypatch):
    async def work():
        async with gateway:
            good = (await gateway.search()).json()

            async def full(_records):
                raise EventLogFull("No space left on device")

            monkeypatch.setattr(gateway.service._log, "append", full)
            answer = await gateway.client.post(
                "/v1/events", json=[event(good["search_id"], good["results"][0]["video_id"])]
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "event_log")
            assert (await gateway.search()).status_code == 503, (
                "a search whose record is lost would make orphans of its events"
            )
            assert "crops_events_lost_total 2.0" in (await gateway.client.get("/metrics")).text

    run(work())


def test_more_than_it_can_hold_is_429_at_once(tmp_path, triton, releases):
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": releases[0]}))

    async def work():
        async with Gateway(settings_for(tmp_path, triton, max_in_flight=4)) as gateway:
            answers = await asyncio.gather(*(gateway.search(f"subject{n}") for n in range(40)))
            codes = [a.status_code for a in answers]
            assert set(codes) == {200, 429}
            assert all(a.headers["retry-after"] for a in answers if a.status_code == 429)
            text, refused = (await gateway.client.get("/metrics")).text, codes.count(429)
            assert f'crops_search_requests_total{{arm="none",outcome="overloaded"}} {refused}.0' in text
            assert f'crops_http_answers_total{{route="/v1/search",status="429"}} {refused}.0' in text

    run(work())


def in_an_experiment(folder, triton, releases, **more):
    """A gateway of which all users are in an experiment, half of them in each arm."""
    manifest.write(
        str(folder / "manifest.json"),
        Manifest(generation=1, arms={"control": releases[0], "treatment": releases[1]}),
    )
    experiment = features.Experiment(
        name="e",
        salt="s",
        coverage=1.0,
        control=releases[0].uri,
        treatment=releases[1].uri,
        start="2020-01-01T00:00:00Z",
    )
    (folder / "features.json").write_text(json.dumps(features.render([experiment])))
    return Gateway(settings_for(folder, triton, features=str(folder / "features.json"), **more))


def test_a_treatment_that_triton_lost_costs_no_answer_and_counts_against_it(tmp_path, triton, releases):
    async def work():
        async with in_an_experiment(tmp_path, triton, releases, cache_queries=0) as gateway:
            toys.control.unload(triton.http, releases[1].model, key=triton.key)
            answers = [(await gateway.search(user=f"user {n}")) for n in range(40)]
            assert {answer.status_code for answer in answers} == {200}
            bodies = [answer.json() for answer in answers]
            assert {body["arm"] for body in bodies} == {"control", None}
            assert {body["release"] for body in bodies} == {releases[0].uri}
            assert {record.arm for record in read_all(gateway.settings.events)} == {"control", None}
            moved = sum(body["arm"] is None for body in bodies)
            text = (await gateway.client.get("/metrics")).text
            failed = 'crops_search_requests_total{arm="treatment",outcome="encoder_unavailable"}'
            assert f"{failed} {moved}.0" in text
            assert 'crops_searches_total{arm="treatment"} 0.0' in text
            assert (await gateway.client.get("/readyz")).status_code == 200

    try:
        run(work())
    finally:
        toys.control.load(triton.http, releases[1].model, key=triton.key)


def test_every_outcome_of_a_search_has_its_first_0(gateway):
    """Errors of a series that begins with them are no increase: a burst between two scrapes is not seen."""
    codes = re.findall(
        r'code="(\w+)"', "".join(p.read_text() for p in Path(service.__file__).parent.glob("*.py"))
    )
    others = {"no_rollout", "not_writable", "no_event_log"}  # not of a search
    assert set(codes) - others <= set(errors.OUTCOMES)

    async def work():
        async with gateway:
            text = (await gateway.client.get("/metrics")).text
            for outcome in errors.OUTCOMES:
                for arm in ("none", "control", "treatment"):
                    assert f'crops_search_requests_total{{arm="{arm}",outcome="{outcome}"}} 0.0' in text

    run(work())


def test_a_fault_of_its_own_is_a_500_in_the_contracts_words_counted_and_logged(gateway, monkeypatch, caplog):
    async def work():
        async with gateway:

            async def broken(_served, query, _k):
                raise RuntimeError(query)

            monkeypatch.setattr(gateway.service.searcher, "search", broken)
            answer = await gateway.search("what a user typed")
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
            assert answer.headers["x-request-id"]
            text = (await gateway.client.get("/metrics")).text
            assert 'crops_search_requests_total{arm="none",outcome="internal"} 1.0' in text
            assert 'crops_http_answers_total{route="/v1/search",status="500"} 1.0' in text

    run(work())
    (record,) = (r for r in caplog.records if r.exc_info)
    line = JsonLines().format(record)
    assert "RuntimeError" in line
    assert "in broken" in line
    assert "typed" not in line


@pytest.mark.parametrize("what", ["a search", "an event"])
def test_the_deadline_holds_around_a_log_that_hangs_and_its_record_still_arrives(
    what, tmp_path, triton, releases, monkeypatch
):
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": releases[0]}))

    async def work():
        async with Gateway(settings_for(tmp_path, triton, deadline_s=0.5)) as gateway:
            told = (await gateway.search()).json()
            append, back = gateway.service._log.append, asyncio.Event()

            async def slow(records):
                await back.wait()
                await append(records)

            monkeypatch.setattr(gateway.service._log, "append", slow)
            if what == "a search":
                answer = await gateway.search()
            else:
                click = event(told["search_id"], told["results"][0]["video_id"])
                answer = await gateway.client.post("/v1/events", json=[click])
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deadline")
            back.set()
            while len(list(read_all(gateway.settings.events))) < 2:
                await asyncio.sleep(0.05)

    run(work())


def test_the_collector_of_garbage_looks_at_no_release_and_is_not_needed_to_let_one_go(
    gateway, tmp_path, releases
):
    async def work():
        async with gateway:
            assert gc.get_freeze_count() > 0
            await gateway.client.post("/v1/compare", json={"query": "subject1"})
            before = weakref.ref(gateway.service.holder.arms["treatment"].cache)
            arms = {"control": releases[0]}
            manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=2, arms=arms))
            gc.disable()
            await gateway.service.look()
            assert before() is None

    try:
        run(work())
    finally:
        gc.enable()


def test_a_store_of_reformulations_that_hangs_delays_no_answer(gateway, monkeypatch):
    async def work():
        async with gateway:
            await gateway.search()

            async def hangs(*_):
                await asyncio.sleep(20)

            monkeypatch.setattr(gateway.service._reformulations, "reformulated", hangs)
            started_s = time.monotonic()
            answer = await gateway.search()
            took_s = time.monotonic() - started_s
            assert answer.status_code == 200
            assert answer.json()["took_ms"] / 1000 <= took_s < 15

    run(work())


def test_a_triton_that_dies_is_503_and_found_again(tmp_path, releases):
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": releases[0]}))
    server = toys.triton(tmp_path / "triton")

    def load(one):
        toys.repository.write(
            Path(releases[0].files), tmp_path / "triton/models", releases[0].model, toys.INSTANCES
        )
        toys.control.load(one.http, releases[0].model, key=one.key)

    async def work():
        nonlocal server
        load(server)
        async with Gateway(settings_for(tmp_path, server, encode_timeout_s=0.4, cache_queries=0)) as gateway:
            expected = (await gateway.search()).json()["results"]
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            for n in range(6):
                answer = await gateway.search(f"subject{n}")
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "encoder_unavailable")
            assert gateway.service.encoder.breaker(releases[0].model).open
            server = toys.launch.start(
                toys.install.VENV, tmp_path / "triton/models", tmp_path / "triton/state", server.ports
            )
            server.wait_live()
            load(server)
            for _ in range(40):
                answer = await gateway.search()
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.1)
            assert answer.json()["results"] == expected

    try:
        run(work())
    finally:
        server.stop()


def test_with_its_index_in_milvus_it_answers_the_same(tmp_path, triton, releases):
    """milvus-lite; a release whose collection is not there is refused."""
    from crops.stages.release import deploy

    uri = str(tmp_path / "milvus.db")
    deploy._fill(uri, Path(releases[0].files), milvus.name_of(releases[0].checksum))
    url = str(tmp_path / "manifest.json")
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))

    async def work():
        async with Gateway(settings_for(tmp_path, triton)) as plain:
            expected = (await plain.search(k=5)).json()["results"]
        async with Gateway(settings_for(tmp_path, triton, milvus=uri), log=False) as gateway:
            found = (await gateway.search(k=5)).json()["results"]
            assert [r["score"] for r in found] == pytest.approx([r["score"] for r in expected], abs=1e-4)
            manifest.write(url, Manifest(generation=2, arms={"control": releases[1]}))
            await gateway.service.look()
            assert "no whole collection" in (await gateway.client.get("/v1/release")).json()["problem"]

    run(work())


PLUGIN = """
from pathlib import Path

from crops.release import index

FOLDERS = {folders!r}
asked = []


def connect(checksum):
    held = index.of_release(Path(FOLDERS[checksum]))
    vectors = held.inner.reconstruct_n(0, len(held.ids))

    def nearest(queries, k):
        asked.append(len(queries))
        if len(asked) > 8:
            raise OSError("connection refused")
        scores, rows = index.exact(vectors, queries, k)
        return [[(held.ids[r], float(s)) for r, s in zip(*one)] for one in zip(rows, scores)]

    return nearest
"""


def test_with_its_index_in_a_plug_in_it_answers_the_same(tmp_path, triton, releases, monkeypatch):
    """A release that the plug-in does not know is refused; an engine that fails is 503."""
    folders = {releases[0].checksum: releases[0].files}
    (tmp_path / "engine_of_a_test.py").write_text(PLUGIN.format(folders=folders))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "engine_of_a_test", raising=False)
    url = str(tmp_path / "manifest.json")
    manifest.write(url, Manifest(generation=1, arms={"control": releases[0]}))
    settings = settings_for(tmp_path, triton, index_plugin="engine_of_a_test:connect")

    async def work():
        async with Gateway(settings_for(tmp_path, triton)) as plain:
            expected = (await plain.search(k=5)).json()["results"]
        async with Gateway(settings, log=False) as gateway:
            found = (await gateway.search(k=5)).json()["results"]
            assert [r["video_id"] for r in found] == [r["video_id"] for r in expected]
            manifest.write(url, Manifest(generation=2, arms={"control": releases[1]}))
            await gateway.service.look()
            assert "cannot connect" in (await gateway.client.get("/v1/release")).json()["problem"]
            sys.modules["engine_of_a_test"].asked.extend([0] * 9)
            answer = await gateway.search("part3", k=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "index_unavailable")

    run(work())
