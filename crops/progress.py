"""How far a long piece of work is: a bar on a terminal, lines where a person follows a log, else nothing."""

import os
import sys
from typing import Any, TextIO

from tqdm import tqdm

# Seconds between two lines. Who shows a task's output as it comes sets it: a pod's log is nobody's screen.
LINES_EVERY_S = "CROPS_PROGRESS_EVERY_S"


class _Lines:
    """A text stream on which each state of a bar is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Part of the file protocol."""
        if line := text.strip():
            self.stream.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        """Part of the file protocol."""
        self.stream.flush()


def bar(*items: Any, disable: bool = False, **options: Any) -> Any:
    """tqdm(*items, **options); nothing where `disable` is set, or nobody looks."""
    every_s, drawn = os.environ.get(LINES_EVERY_S), dict[str, Any](disable=disable or None)
    if every_s is not None and not sys.stderr.isatty():
        shown = "{desc}: {n_fmt} of {total_fmt}{postfix}, {remaining} left"
        drawn = {"disable": disable, "file": _Lines(sys.stderr), "bar_format": shown}
        drawn["mininterval"] = float(every_s)
    make: Any = tqdm  # whose types know only one iterable, and no options from a dictionary
    return make(*items, **drawn, **options)
