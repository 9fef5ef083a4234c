"""Every line of every runbook and of docs/operations.md, typed where that page says that it belongs, in an
installation with its rollout controller; and releases that must not reach everybody, as they end there.
"""

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from crops.release import layout
from serving.triton import launch
from tests import bad_releases
from tests.cluster import trial
from tests.cluster.access import eventually, place
from tests.cluster.shop import more_searches, none_failed
from tests.cluster.trial import BETTER, OLD, PORT, REGISTRY, in_pod, manifest, state, trail
from tests.monitoring.runbooks import OPERATIONS, RUNBOOKS, commands_of, queries_of
from tests.serving import releases as toys

place()
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

PAGES = {page.stem: page for page in (*RUNBOOKS, OPERATIONS)}
NAME = "search-crops"
# Beginning of a line that is not typed here -> why.
ELSEWHERE = {
    "tail -50 .crops-serve/": "files of `crops serve` on a laptop",
    "crops serve --release FOLDER": "serves on a laptop until Ctrl-C",
    "jq ": "reads the folder of a training on a laptop",
    "iostat ": "a tool of the node's distribution",
    "kubectl -n NAMESPACE edit pvc": "opens an editor",
    "kubectl -n NAMESPACE port-forward": "stays until Ctrl-C; each page here is typed while it does",
    "kubectl -n NAMESPACE exec deploy/NAME-rollout -- crops ...": "a form, in which other lines are typed",
    "kubectl -n NAMESPACE exec deploy/NAME-rollout -- sh -c '...'": "a form, in which other lines are typed",
}
# Line -> what it shows, by the page's own words.
SHOWS = {
    r"curl .*/v1/release": r'"model":"query_encoder.*"documents":\d',
    r"curl .*/healthz": "alive",
    r"curl .*/readyz": "ready",
    r"curl .*/v2/health/ready": "",
    r"curl .*/v2/models/MODEL/ready": r"\b200\b",
    r"curl .*/v2/models/MODEL/config": '"max_batch_size"',
    "crops rollout status": r"step \d of \d",
    "crops rollout abort": r": aborted$",
    "crops deploy --withdraw": "treatment is empty",
    "crops deploy": "is control",
    "crops compact": "compact",
    "crops experiment": "verdict: ",
    "kubectl .* get jobs,pods .*=compactor": r"(?s)job\.batch/.*pod/|pod/.*job\.batch/",
    "kubectl .* logs .*=compactor": r"searches_in_all",
    "kubectl .* create job": "created",
    "kubectl .* get pods .*=rollout": "Running",
    "kubectl .* logs deploy/NAME-rollout": r"\d\d:\d\d:\d\d ",
    "kubectl .* logs .*=gateway .*refused": r'"reason": "index", "why": ".*another encoder',
    "kubectl .* logs .*=gateway": r'\{"',
    "kubectl .* exec deploy/NAME-triton -- tail": "query_encoder",
    "kubectl .* exec NAME-gateway-0 -- du": r"/shared/tables",
    "ls -l EVENTS/damaged": r"\.seg@\d",
    r"ls -l EVENTS \| tail": r"\.(?:seg|open)",
    "df -h EVENTS": "%",
    "python3 -c": "subject1",
    "dmesg": "",
}
# Beginning of a query that has no answer here -> why.
SILENT = {
    "time() - kube_cronjob": "no kube-state-metrics here",
    "kubelet_volume": "the kubelet is not scraped here",
    "sum by (outcome)": "no search failed",
    "crops_release_rejected_total": "none was rejected before its page",
}
ENLIST = """
import sys
from pathlib import Path
from crops.release.layout import sha256
from crops.services.registry import Registry
registry, folder = Registry(sys.argv[1], "crops"), Path("/shared/releases") / sys.argv[2]
version = registry.register(folder, tags={"checksums": sha256(folder / "checksums.json")})
registry.move("challenger", version, expected=registry.holder("challenger"), reason="test")
print(version)
"""
# Eight bytes inside the newest record of the segment that a gateway writes, which no compaction has read.
SPOIL = """
from pathlib import Path
path = max(Path("/shared/events").glob("search-crops-gateway-0-*.open"))
with path.open("r+b") as file:
    file.seek(-40, 2)
    file.write(bytes(8))
"""
KILL = "import os; os.kill(1, 15)"


@pytest.fixture(scope="module")
def shop(live, images_on_node, tmp_path_factory):
    """With releases/spoilt, of which encoder and index do not belong together."""
    folder = tmp_path_factory.mktemp("volume")
    good = [Path(release.files) for release in toys.build(folder / "releases")]
    layout.seal(bad_releases.other_index(*good, folder / "releases/spoilt"))
    with trial.running(live, images_on_node, folder) as made:
        yield made


def enlisted(shop, name: str) -> str:
    """The version of releases/NAME, challenger by now."""
    return in_pod(shop, "python3", "-c", ENLIST, REGISTRY, name).split()[-1]


@contextlib.contextmanager
def forwarded(cluster, namespace: str, service: str, port: int):
    """The address under which `kubectl port-forward` gives a Service to this machine."""
    (here,) = launch.free_ports(1)
    command = [cluster.program, f"--kubeconfig={cluster.kubeconfig}", "-n", namespace]
    with subprocess.Popen(
        [*command, "port-forward", f"svc/{service}", f"{here}:{port}"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert "Forwarding" in process.stdout.readline()
            yield f"localhost:{here}"
        finally:
            process.terminate()


def released(shop) -> dict:
    """What a gateway says of itself."""
    with forwarded(shop.cluster, shop.namespace, f"{NAME}-gateway", 80) as address:
        return httpx.get(f"http://{address}/v1/release", trust_env=False).json()


def asked(address: str, query: str) -> list:
    """Prometheus's answer to a query."""
    told = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, trust_env=False).json()
    assert told["status"] == "success", (query, told)
    return told["data"]["result"]


def typed(shop, line: str, places: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The line with its capitals filled in, where docs/operations.md says that it belongs."""
    for word, value in places.items():
        line = re.sub(rf"(?<![A-Za-z$-]){word}\b", value, line)
    line = re.sub(r"models:/crops/(?:N|OLD|BEFORE|7)\b", OLD, line)
    cluster, words = shop.cluster, ["sh", "-c", line]
    if re.match(r"(?:crops|ls|df|python3) ", line):
        words = [cluster.program, "-n", shop.namespace, "exec", f"deploy/{NAME}-rollout", "--", *words]
    told = {
        **os.environ,
        **places,
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{Path(cluster.program).parent}:{os.environ['PATH']}",
        "no_proxy": "*",
    }
    return subprocess.run(words, env=told, capture_output=True, text=True, timeout=300)


def runs(shop) -> bool:
    """Whether a rollout does."""
    read = ("exec", "volume", "--", "cat", "/shared/rollout/rollout.json")
    done = shop.cluster.run("-n", shop.namespace, *read)
    return done.returncode == 0 and json.loads(done.stdout)["phase"] in {"canary", "ab"}


def begun(shop, name: str) -> None:
    """A rollout of the better release, unless one runs."""
    if not runs(shop):
        in_pod(shop, "python3", "-c", trial.CHALLENGE, REGISTRY, "2")
        in_pod(shop, "crops", "rollout", "start", "--name", name)


def compared(shop) -> None:
    """Tables with searches of both arms of a rollout that is over, or it would go on to its verdict."""
    begun(shop, "compared")
    more_searches(shop, shop.counts(), 100)
    in_pod(shop, "crops", "rollout", "abort", "--reason", "compared")
    in_pod(shop, "crops", "compact", "--events", "/shared/events", "--out", "/shared/tables")


def damaged(shop) -> None:
    """A gateway begins anew on a segment of its own that somebody changed, and a compaction has seen it."""
    shop.in_volume("python3", "-c", SPOIL)
    shop.kubectl("delete", "pod", f"{NAME}-gateway-0", "--force", "--grace-period=0")
    shop.whole()
    line = "crops compact --events /shared/events --out /shared/tables"
    done = typed(shop, line, {})
    assert done.returncode == 1, done
    assert re.search(r"gateway-0-\S+@\d+: \d+ bytes are no record", done.stderr), done


def restarted(shop) -> None:
    """The controller's container is its second, and has looked."""
    in_pod(shop, "python3", "-c", KILL)
    eventually(
        lambda: [
            one["restartCount"] for p in shop.pods("rollout") for one in p["status"]["containerStatuses"]
        ],
        lambda counts: counts and counts[0] > 0,
    )
    eventually(lambda: shop.kubectl("logs", f"deploy/{NAME}-rollout"), bool)


def refused(shop) -> None:
    """A release whose index is another encoder's was deployed, and no gateway took it. The controller, whose
    trials are over, takes it out of the manifest within a look.
    """
    version = enlisted(shop, "spoilt")
    done = typed(shop, f"crops deploy --release models:/crops/{version}", {})
    assert done.returncode != 0, done
    assert "refuses generation" in done.stderr, done


# What has happened before somebody opens the page.
BEFORE = {
    "CompactionOverdue": lambda shop: shop.compact("overdue"),
    "EventsDamaged": damaged,
    "ReleaseRejected": refused,
    "RolloutControllerDown": restarted,
    "QueryVocabularyShifts": compared,
    "TreatmentClicksLess": compared,
    "TreatmentReformulatesMore": compared,
    "VolumeFills": compared,
}


def test_what_is_not_typed_and_what_is_expected_are_of_lines_that_there_are():
    commands = [line for page in PAGES.values() for line in commands_of(page)]
    queries = [line for page in PAGES.values() for line in queries_of(page)]
    assert len(commands) > 40
    for start in ELSEWHERE:
        assert any(line.startswith(start) for line in commands), start
    for start in SILENT:
        assert any(line.startswith(start) for line in queries), start
    for shape in SHOWS:
        assert any(re.match(shape, line) for line in commands), shape
    assert BEFORE.keys() <= PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_each_line_of_the_page_is_the_whole_line(shop, name):
    BEFORE.get(name, lambda shop: None)(shop)
    with contextlib.ExitStack() as undo:
        here = {
            word: undo.enter_context(forwarded(shop.cluster, shop.namespace, f"{NAME}-{role}", port))
            for word, role, port in (("GATEWAY", "gateway", 80), ("TRITON", "triton", 8000))
        }
        prometheus = undo.enter_context(forwarded(shop.cluster, shop.aside, "prometheus", PORT))
        places = {
            "NAMESPACE": shop.namespace,
            "NAME": NAME,
            "EVENTS": "/shared/events",
            "TABLES": "/shared/tables",
            "STATE": "/shared/rollout",
            "MODEL": next(iter(released(shop)["arms"].values()))["model"],
        }
        for line in commands_of(PAGES[name]):
            if line.startswith(tuple(ELSEWHERE)):
                continue
            if line.startswith("crops rollout"):
                begun(shop, f"by-{name}")
            command = line.partition(" #")[0]  # a comment may name another line
            shown = next(meant for shape, meant in SHOWS.items() if re.match(shape, command))
            done = typed(shop, line, {**places, **here})
            print(f"{line}\n{done.stdout[-600:]}{done.stderr[-600:]}")
            assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
            assert re.search(shown, done.stdout.strip(), re.MULTILINE), (line, done.stdout[-2000:])
        for query in queries_of(PAGES[name]):
            if query.startswith(tuple(SILENT)):
                asked(prometheus, query)
            else:
                eventually(lambda query=query: (query, asked(prometheus, query)), lambda both: both[1], 90)


def test_a_release_with_another_encoders_index_is_rolled_back_by_itself(shop):
    """Its rollout is in the canary for as long as it takes gateways to refuse it."""
    before = shop.counts()
    enlisted(shop, "spoilt")
    told = typed(shop, "crops rollout start --name spoilt", {})
    print(told.stdout, told.stderr)
    at = eventually(lambda: state(shop), lambda now: now["phase"] not in {"canary", "ab"}, 300)
    assert (at["experiment"], at["phase"]) == ("spoilt", "rolled back"), trail(shop)[-1]
    print(trail(shop)[-1]["reason"])
    assert manifest(shop) == {"control": OLD}
    none_failed(before, more_searches(shop, before, 100))


def test_a_lost_rollout_state_costs_a_trial_and_no_search(shop):
    """As the table of docs/operations.md says: withdraw, then start anew."""
    before = shop.counts()
    begun(shop, "lost")
    shop.in_volume("sh", "-c", "rm -rf /shared/rollout/*")
    in_pod(shop, "crops", "deploy", "--withdraw", "--arm", "treatment")
    assert manifest(shop) == {"control": OLD}
    in_pod(shop, "crops", "rollout", "start", "--name", "anew")
    assert manifest(shop) == {"control": OLD, "treatment": BETTER}
    in_pod(shop, "crops", "rollout", "abort", "--reason", "tried")
    none_failed(before, more_searches(shop, before, 100))


def test_a_manifest_is_put_back_from_a_backup_and_written_anew(shop):
    """As docs/operations.md says of both; what was older is served again under its older generation."""
    before = shop.counts()
    shop.in_volume("sh", "-c", "mkdir /shared/backup && cp /shared/manifest.json* /shared/backup")
    older = released(shop)["generation"]
    in_pod(shop, "crops", "deploy", "--arm", "control", "--release", BETTER)
    assert released(shop)["generation"] > older
    shop.in_volume("sh", "-c", "rm -f /shared/manifest.json.*; cp -p /shared/backup/manifest.json /shared/")
    eventually(lambda: released(shop), lambda told: told["arms"]["control"]["release"] == OLD, 30)
    shop.in_volume("sh", "-c", "rm /shared/manifest.json*")
    none_failed(before, more_searches(shop, shop.counts(), 100))
    in_pod(shop, "crops", "deploy", "--arm", "control")
    told = eventually(lambda: released(shop), lambda told: told["generation"] == 1, 30)
    assert told["arms"]["control"]["release"] == OLD
    none_failed(before, more_searches(shop, shop.counts(), 100))
