"""The chart on a node: real gateways and Tritons from our images, under people who search meanwhile.

One installation for the whole module, in the order of a day: as docs/install.md says, upgraded, hurt,
drained; then what was acknowledged is looked for in the tables.
"""

import json

import pytest

from tests.cluster.access import eventually, place
from tests.cluster.shop import SMALL, more_searches, none_failed, none_lost, opened

place()
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]

FEWEST = 2_000


@pytest.fixture(scope="module")
def shop(live, images_on_node, tmp_path_factory):
    with opened(live, images_on_node, tmp_path_factory.mktemp("volume"), {}) as made:
        yield made


def test_what_the_install_page_says_ends_in_an_answered_search(shop):
    with shop.cluster.helm(shop.namespace) as helm:
        told = helm.test("search", timeout=300, logs=True)
    assert "models:/crops/1" in told["logs"], told
    before = shop.counts()
    none_failed(before, more_searches(shop, before, 50))


def test_an_upgrade_of_gateways_and_tritons_fails_no_search_of_people_who_keep_their_connections(shop):
    before, old = shop.counts(), {p["metadata"]["uid"] for c in ("gateway", "triton") for p in shop.pods(c)}
    new = {c: {"resources": SMALL, "podAnnotations": {"turn": "2"}} for c in ("gateway", "triton")}
    shop.upgrade(new)
    shop.whole()
    after = more_searches(shop, before, FEWEST // 2)
    assert not old & {p["metadata"]["uid"] for c in ("gateway", "triton") for p in shop.pods(c)}, (
        "all are new"
    )
    none_failed(before, after)


def test_a_rollback_fails_none_either(shop):
    before = shop.counts()
    with shop.cluster.helm(shop.namespace) as helm:
        helm.rollback("search", wait="watcher", timeout=600)
    shop.whole()
    none_failed(before, more_searches(shop, before, 300))


def test_a_gateway_killed_without_a_word_costs_a_second_try_at_most(shop):
    before, old = shop.counts(), {pod["metadata"]["uid"] for pod in shop.pods("gateway")}
    shop.kubectl("delete", "pod", "search-crops-gateway-0", "--force", "--grace-period=0")
    shop.whole()
    assert len(old & {pod["metadata"]["uid"] for pod in shop.pods("gateway")}) == 1
    none_failed(before, more_searches(shop, before, 300), again=8)


def test_a_killed_triton_server_fails_no_search(shop):
    before = shop.counts()
    name = shop.pods("triton")[0]["metadata"]["name"]
    kill = (
        "import os, pathlib\n"
        "for p in pathlib.Path('/proc').glob('[0-9]*/comm'):\n"
        "    if p.read_text().startswith('tritonserver'): os.kill(int(p.parent.name), 9)"
    )
    shop.kubectl("exec", name, "--", "python3", "-c", kill)
    eventually(
        lambda: sum(
            one["restartCount"] for p in shop.pods("triton") for one in p["status"]["containerStatuses"]
        ),
        lambda restarts: restarts >= 1,
    )
    shop.whole()
    none_failed(before, more_searches(shop, before, 300))


def test_a_drain_waits_for_the_budget_and_fails_no_search(shop):
    """Of the only node: what is evicted waits for it, so the second of each must stay."""
    before = shop.counts()
    (node,) = json.loads(shop.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    name = node["metadata"]["name"]
    asked = ("--pod-selector=app.kubernetes.io/instance=search", "--delete-emptydir-data", "--timeout=60s")
    try:
        done = shop.cluster.run("drain", name, *asked, "--ignore-daemonsets")
        assert done.returncode != 0
        assert "disruption budget" in done.stdout + done.stderr
        assert min(shop.ready("gateway"), shop.ready("triton")) == 1
    finally:
        shop.cluster.kubectl("uncordon", name)
    shop.whole()
    after = more_searches(shop, before, 300)
    none_failed(before, after)
    assert after["searches"] >= FEWEST


def test_what_was_acknowledged_is_in_the_tables(shop):
    none_lost(shop, least=1_000)
