"""What every stage returns: its numbers, for the screen, MLflow, KFP metrics and the report."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from crops.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of the queries, the same on every machine: what one task of several does."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "2/8": the third of eight. ConfigError where it is something else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise ConfigError(f"shard is {text!r}, expected INDEX/COUNT with 0 <= INDEX < COUNT, e.g. 0/4")
        return cls(int(match[1]), int(match[2]))

    def holds(self, query: str) -> bool:
        """Whether the query is of this part."""
        if self.count == 1:
            return True
        digest = hashlib.blake2b(query.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index

    def of(self, stage: str) -> str:
        """The stage's name, with the part where it is not the whole."""
        return stage if self.count == 1 else f"{stage} {self.index}/{self.count}"


WHOLE = Shard()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """`numbers` are flat and named with their unit; `notes` are sentences for the user (what is missing, what
    is off).
    """

    numbers: dict[str, float | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """One line a number, then the notes, for the terminal."""
        width = max((len(name) for name in self.numbers), default=0)
        for name, value in self.numbers.items():
            yield (
                f"  {name:<{width}}  {value:,.4f}"
                if isinstance(value, float)
                else f"  {name:<{width}}  {value:,}"
            )
        yield from (f"  note: {note}" for note in self.notes)
