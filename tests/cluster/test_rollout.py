"""Canary, A/B and verdict by the chart's own controller on a node, and the commands that docs/operations.md
gives.
"""

import pytest

from tests.cluster import trial
from tests.cluster.access import eventually, place
from tests.cluster.shop import more_searches, none_failed, none_lost
from tests.cluster.trial import BETTER, CHALLENGE, CHAMPION, OLD, REGISTRY, in_pod, manifest, state, trail

place()
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def shop(live, images_on_node, tmp_path_factory):
    with trial.running(live, images_on_node, tmp_path_factory.mktemp("volume")) as made:
        yield made


def test_a_canary_widens_by_what_gateways_know_and_outlives_its_controller(shop):
    """No readout is there: nothing was compacted yet."""
    before = shop.counts()
    told = in_pod(shop, "crops", "rollout", "start", "--name", "autumn")
    assert f"{BETTER} against {OLD}" in told
    eventually(lambda: state(shop), lambda now: now["step"] == 1 or now["phase"] != "canary", 300)
    shop.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=rollout", "--wait=false")
    at = eventually(lambda: state(shop), lambda now: now["phase"] != "canary", 300)
    assert at["phase"] == "ab", trail(shop)
    assert [line["verdict"] for line in trail(shop)] == ["wait", "advance", "advance"]
    assert shop.cluster.run("-n", shop.namespace, "exec", "volume", "--", "ls", "/shared/readout").returncode
    assert manifest(shop) == {"control": OLD, "treatment": BETTER}
    shop.kubectl("rollout", "status", "deploy/search-crops-rollout", "--timeout=300s")
    assert "autumn: ab" in in_pod(shop, "crops", "rollout", "status")
    none_failed(before, shop.counts())


def test_the_a_b_is_decided_by_the_compactors_readout_and_the_better_one_is_promoted(shop):
    before = shop.counts()
    more_searches(shop, before, 800)
    shop.compact("readout-1")
    at = eventually(lambda: state(shop), lambda now: now["phase"] != "ab", 300)
    assert at["phase"] == "promoted", trail(shop)[-1]
    assert trail(shop)[-1]["reason"].startswith("readout: better")
    eventually(lambda: manifest(shop), lambda arms: arms == {"control": BETTER})
    assert in_pod(shop, "python3", "-c", CHAMPION, REGISTRY).strip() == "2"
    none_failed(before, more_searches(shop, shop.counts(), 50))


def test_the_readout_of_the_first_trial_does_not_decide_the_second_whose_challenger_is_worse(shop):
    before = shop.counts()
    in_pod(shop, "python3", "-c", CHALLENGE, REGISTRY, "1")
    in_pod(shop, "crops", "rollout", "start", "--name", "winter")
    assert "better" in shop.in_volume("cat", "/shared/readout/readout.json")
    at = eventually(lambda: state(shop), lambda now: now["phase"] not in {"canary", "ab"}, 600)
    assert (at["experiment"], at["phase"]) == ("winter", "rolled back"), trail(shop)[-1]
    assert trail(shop)[-1]["reason"].startswith("ctr: ")
    eventually(lambda: manifest(shop), lambda arms: arms == {"control": BETTER})
    none_failed(before, shop.counts())


def test_a_person_ends_a_trial_by_the_runbooks_line(shop):
    before = shop.counts()
    in_pod(shop, "crops", "rollout", "start", "--name", "spring")
    told = in_pod(shop, "crops", "rollout", "abort", "--reason", "latency")
    assert "spring: aborted" in told
    assert manifest(shop) == {"control": BETTER}
    assert trail(shop)[-1]["reason"] == "aborted by hand: latency"
    in_pod(shop, "crops", "deploy", "--arm", "control", "--release", OLD)  # back to an older champion
    assert manifest(shop) == {"control": OLD}
    none_failed(before, more_searches(shop, shop.counts(), 100))


def test_what_was_acknowledged_over_all_that_is_in_the_tables(shop):
    none_lost(shop, least=500)
