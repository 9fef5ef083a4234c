"""The same expressions on every engine: DuckDB always, Spark where Java is."""

import pytest

from crops.engines import session
from tests.crops.mining import engines


@pytest.fixture(params=engines.ENGINES)
def house(request, tmp_path):
    if request.param == "spark":
        engines.need_spark()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with session.opened(request.param, scratch=scratch, threads=1) as opened:
        yield opened
