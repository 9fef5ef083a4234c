"""The errors a user can cause: each ends a verb with one line and exit code 2. Everything else is a bug and
keeps its trace.
"""

from collections.abc import Sequence
from pathlib import Path

# Between the parts of a message that lists several faults: the terminal keeps these lines apart, and no
# others.
ITEM = "\n  · "


class CropsError(Exception):
    """Base of all errors whose message is written for the user: file, row, value and what was expected."""


class InputError(CropsError):
    """A table, file or row is not what the stage expects.

    >>> str(InputError("logs/results", "stage is 'shown', expected one of exposed, ranked, filtered", row=7))
    "logs/results:7: stage is 'shown', expected one of exposed, ranked, filtered"
    """

    def __init__(self, path: Path | str, problem: str, *, row: int | None = None) -> None:
        place = f"{path}:{row}" if row is not None else str(path)
        super().__init__(f"{place}: {problem}")

    @classmethod
    def of(cls, place: Path | str, faults: Sequence["InputError"]) -> "InputError":
        """All of them in one message; a single one stands for itself."""
        if len(faults) == 1:
            return faults[0]
        return cls(place, ITEM.join([f"{len(faults)} faults", *map(str, faults)]))


class ConfigError(CropsError):
    """A setting is unknown, of the wrong type or out of range."""


class ServiceError(CropsError):
    """A service that a stage needs (LLM, registry, Kubeflow) is down, refuses, or answers rubbish for too
    long.
    """


class StorageError(CropsError):
    """The disk is full or not writable; nothing half-written was left under its final name."""
