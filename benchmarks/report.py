"""What the benchmarks share: their command line, the machine in words, Markdown tables, and where `--write`
puts them.
"""

import argparse
import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from crops import cores

RESULTS = Path(__file__).parent / "results"


def arguments(about: str) -> argparse.ArgumentParser:
    """A parser with `--write`; a benchmark may add options of its own."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--write", action="store_true", help="store what is printed in benchmarks/results/")
    return parser


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def points(gap: Mapping[str, float]) -> str:
    """A difference of two shares with its interval, as `metrics.compare` gives it, in points."""
    return f"{100 * gap['difference']:+.1f} [{100 * gap['low']:+.1f}, {100 * gap['high']:+.1f}]"


def machine(packages: Sequence[str]) -> str:
    """Date, Python, versions and cores: without them a number cannot be compared."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    today = datetime.datetime.now(datetime.UTC).date()
    load = os.getloadavg()[0]
    return (
        f"{today}, Python {platform.python_version()}, {versions}, "
        f"{cores.count()} cores, {platform.machine()}, "
        f"load {load:.1f} at the end (other work on the machine: ratios hold better than times)."
    )


def out(name: str, text: str, *, write: bool) -> None:
    """Prints `text`; with `write` it also becomes benchmarks/results/<name>.md."""
    print(text)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text + "\n", encoding="utf-8")
