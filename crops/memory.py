"""How much memory this process may use and has used; work that cannot fit says so before it begins."""

import os
import resource
import sys
from pathlib import Path

from crops.cores import ROOT, groups
from crops.errors import InputError

GB = 1e9


def limit(root: Path = ROOT) -> int:
    """Bytes that this process may hold: the machine's memory with its swap, or what a control group that it
    is in allows, where that is less. root: the folder that holds `proc` and `sys`.
    """
    machine, swap = _machine(root)
    allowed = (_allowed(group, swap) for group in groups(root, "memory"))
    return min([machine + swap, *(most for most in allowed if most is not None)])


def peak() -> int:
    """The most bytes that this process has held so far, or one of its children that have ended."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (
        resource.getrusage(who).ru_maxrss * unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # Linux's ru_maxrss is at least what the parent held when it started this process.
    return max(_bytes_of(ROOT / "proc/self/status", "VmHWM")[0] or own, children)


def refuse(place: Path | str, what: str, held: int) -> None:
    """An InputError where `held` bytes, the least that `what` takes, are more than this process may hold: it
    would be killed in the middle of its work.
    """
    most = limit()
    if held > most:
        raise InputError(
            place,
            f"{what}: at least {held / GB:,.1f} GB at once, and this process may hold {most / GB:,.1f} GB; "
            "give it more (a container's memory limit, a larger machine)",
        )


def _machine(root: Path) -> tuple[int, int]:
    """Bytes of memory and of swap."""
    memory, swap = _bytes_of(root / "proc/meminfo", "MemTotal", "SwapTotal")
    return memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), swap


def _bytes_of(path: Path, *names: str) -> list[int]:
    """Bytes by name from lines like `VmHWM:  12 kB`; 0 where there is none."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    except OSError:
        lines = {}
    return [1024 * int(lines.get(name, "0").split()[0]) for name in names]


def _allowed(group: Path, swap: int) -> int | None:
    """Bytes with swap that the group allows; None where it says nothing. `swap`: the machine's, bytes."""
    both = _number(group / "memory.memsw.limit_in_bytes")  # version 1, where it counts swap
    if both is not None:
        return both
    alone = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
    more = _number(group / "memory.swap.max")
    return None if alone is None else alone + min(swap, swap if more is None else more)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # `max` is no number
        return None
