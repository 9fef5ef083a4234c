"""What every stage returns: its numbers, for the screen, MLflow, KFP metrics and the report."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """`numbers` are flat and named with their unit; `notes` are sentences for the user (what is missing, what is off)."""

    numbers: dict[str, float | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """One line a number, then the notes, for the terminal."""
        width = max((len(name) for name in self.numbers), default=0)
        for name, value in self.numbers.items():
            yield f"  {name:<{width}}  {value:,.4f}" if isinstance(value, float) else f"  {name:<{width}}  {value:,}"
        yield from (f"  note: {note}" for note in self.notes)
