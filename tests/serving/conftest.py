"""Shared by all tests of serving: two toy releases and one Triton per session, because each takes seconds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import releases as toys


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Two releases of the toy catalogue whose encoders differ."""
    return toys.build(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="session")
def triton(tmp_path_factory, releases):
    """A Triton that has both releases' encoders loaded."""
    server = toys.triton(tmp_path_factory.mktemp("triton"))
    try:
        root = server.log.parent.parent
        for release in releases:
            toys.repository.write(Path(release.files), root / "models", release.model, toys.INSTANCES)
            toys.control.load(server.http, release.model)
        yield server
    finally:
        server.stop()
