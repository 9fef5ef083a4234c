"""How often `crops serve` starts a part again; its parts are tried in test_part_dies.py."""

import pytest

from crops.errors import ServiceError
from serving import laptop


def starting(*errors):
    """What fails with these, one after the other, and then starts."""
    left = list(errors)

    def start():
        if left:
            raise left.pop(0)
        return "started"

    return start


KILLED, SLOW = laptop._Killed("killed"), ServiceError("model m is not ready 10 s after it was loaded")


def test_a_first_start_fails_on_what_is_loaded_and_not_on_a_kill():
    told = []
    assert laptop._Restarts(2, told.append).until(starting(KILLED, KILLED)) == "started"
    assert told == ["killed; starting it again"] * 2
    with pytest.raises(ServiceError, match="model m is not ready"):
        laptop._Restarts(2, told.append).until(starting(SLOW))


def test_what_has_served_is_started_until_it_serves_or_ends_too_often():
    told = []
    assert laptop._Restarts(2, told.append).until(starting(SLOW, KILLED), again=True) == "started"
    assert len(told) == 2
    with pytest.raises(ServiceError, match="the 3th end within a minute"):
        laptop._Restarts(2, told.append).until(starting(*[SLOW] * 9), again=True)
