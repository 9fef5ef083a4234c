"""A real cluster, as tests of the chart have it."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster import local, node
from tests.cluster.access import Cluster, place
from tests.helm.test_chart import CHART

ROLES = ("gateway", "triton", "mine")
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def _lacking(place: Path, programs: tuple[str, ...]) -> None:
    lacking = [name for name in programs if not (place / "bin" / name).exists()]
    if lacking:
        pytest.skip(f"not run: {place} lacks {', '.join(lacking)}: make cluster")


@pytest.fixture(scope="session")
def control():
    """A cluster that decides what the API decides; it may have no node."""
    where = place()
    if where.is_file():
        yield Cluster.at(where)
        return
    _lacking(where, local.CONTROL)
    with local.running(where) as kubeconfig:
        yield Cluster.at(kubeconfig, where / "bin")


@pytest.fixture(scope="session")
def cluster(control):
    """The same, with every kind that the chart may make."""
    with control.custom_kinds():
        yield control


@pytest.fixture
def namespace(cluster):
    """A new one that enforces the profile "restricted"."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def live():
    """A cluster with a node of its own, or the one of the kubeconfig."""
    where = place()
    if where.is_file():
        yield Cluster.at(where)
        return
    if os.geteuid() != 0:
        pytest.skip("not run: a node needs root")
    if absent := node.missing():
        pytest.skip(f"not run: a node needs {', '.join(absent)}")
    _lacking(where, tuple(local.PROGRAMS))
    with local.running(where, with_node=True) as kubeconfig:
        yield Cluster.at(kubeconfig, where / "bin")


@pytest.fixture(scope="session")
def images_on_node(live):
    """Role -> the name under which the chart looks for its image.

    CROPS_CLUSTER_LOAD is a command that brings one from Docker to the cluster, say `kind load docker-image`.
    """
    names = {role: f"localhost/crops/{role}:{VERSION}" for role in ROLES}
    load = os.environ.get("CROPS_CLUSTER_LOAD")
    held = node.Containers.of(live.kubeconfig).images() if place().is_dir() else set()
    for role, name in names.items():
        if name in held or (place().is_file() and not load):
            continue
        tagged = subprocess.run(["docker", "tag", f"crops/{role}:{VERSION}", name], capture_output=True)
        if tagged.returncode != 0:
            pytest.skip(
                f"not run: no image crops/{role}:{VERSION} in Docker: bash docker/build {' '.join(ROLES)}"
            )
        if load:
            subprocess.run([*load.split(), name], check=True)
        else:
            node.Containers.of(live.kubeconfig).load_from_docker(name)
    return names
