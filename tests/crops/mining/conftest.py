"""The same test body on every engine: DuckDB always, Spark where Java is."""

import pytest

from crops.engines import session
from tests.crops.mining import engines


@pytest.fixture(params=engines.ENGINES)
def engine(request):
    if request.param == "spark":
        engines.need_spark()
    return request.param


@pytest.fixture
def house(engine, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with session.opened(engine, scratch=scratch, threads=1) as opened:
        yield opened
