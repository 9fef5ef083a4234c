import pytest

from tests import shared
from tests.crops.stages.learn import toy_chain


@pytest.fixture
def chain():
    """The folder of toy_chain.make, which tests only read."""
    return shared.made("discriminated", toy_chain.make)
