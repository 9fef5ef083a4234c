"""How many cores this process may use, that its libraries use no more, and that they leave them to others.

Python 3.11 and most libraries count the cores of the machine. A container is given a part of them as a quota
of CPU time; a thread for every core of a large node then waits most of its time for that quota.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
OPENMP = "OMP_NUM_THREADS"  # torch, FAISS, OpenBLAS, MKL and Arrow read it when they are loaded
WAITING = "OMP_WAIT_POLICY"  # read with it: a thread that waits spins unless this says PASSIVE
ESCAPED = re.compile(r"\\([0-7]{3})")  # of white space in /proc/PID/mountinfo


def count(root: Path = ROOT) -> int:
    """Cores that this process may use, at least 1: those that it may run on, or fewer where a group that it
    is in has a quota. Part of a core is not counted: a thread more than the quota stops all of them. root:
    the folder that holds `proc` and `sys`.
    """
    limit = quota(root)
    runs_on = len(os.sched_getaffinity(0))
    return runs_on if limit is None else max(1, min(runs_on, math.floor(limit)))


def quota(root: Path = ROOT) -> float | None:
    """Cores' worth of CPU time of this process's control group, or of the group around it that has the least;
    None where none has a quota, or none can be read.
    """
    return min((cores for group in groups(root) if (cores := _quota(group)) is not None), default=None)


def hold(most: int | None = None) -> None:
    """Libraries loaded from now on, here and in this process's children, use `most` threads, or as many as
    `count` says; so does what is loaded already. Where OMP_NUM_THREADS is set, somebody has chosen.

    On a machine that others keep busy, threads that spin while they wait hold one another up, tenfold and
    more; on one that is free they are the faster ones.
    """
    if os.environ.get(OPENMP):
        return
    threads = most or count()
    os.environ[OPENMP] = str(threads)
    if busy():
        os.environ.setdefault(WAITING, "PASSIVE")
    if "numpy" in sys.modules:
        with contextlib.suppress(ImportError):  # serving has none, and loads nothing before this
            import threadpoolctl

            threadpoolctl.threadpool_limits(threads)
    for name, setter in (("torch", "set_num_threads"), ("pyarrow", "set_cpu_count")):
        if name in sys.modules:
            getattr(sys.modules[name], setter)(threads)


def busy() -> bool:
    """Whether more threads have wanted to run in the last minute than there are cores."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0))


def groups(root: Path, controller: str = "cpu") -> Iterator[Path]:
    """The folders of this process's groups of that controller that can be seen from here, inmost first; of
    version 1 and 2 alike, as both may be mounted.
    """
    proc = root / "proc/self"
    try:
        member = dict(_members((proc / "cgroup").read_text()))
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for mount in mounts:
        fields, _, kind = mount.partition(" - ")
        file_system, _, options = kind.split(" ", 2)
        named = {"cgroup2": "", "cgroup": controller}.get(file_system)
        if named not in member or (named and named not in options.split(",")):
            continue
        shown, at = (_plain(field) for field in fields.split()[3:5])
        top = root / at.lstrip("/")
        # A container may see its own group alone, mounted as if it were the top.
        inside = os.path.relpath(member[named], shown)
        group = top if inside.startswith("..") else Path(os.path.normpath(top / inside))
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Controller and group from lines like `4:cpu,cpuacct:/a/b`; version 2 has no controller: `0::/a/b`."""
    for line in filter(None, text.splitlines()):
        _, controllers, group = line.split(":", 2)
        yield from ((controller, group) for controller in controllers.split(","))


def _quota(group: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").exists():  # version 2: microseconds or `max`, and of how many
            quota, period = (group / "cpu.max").read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        given_us = int((group / "cpu.cfs_quota_us").read_text())  # version 1: -1 is none
        if given_us > 0:
            return given_us / int((group / "cpu.cfs_period_us").read_text())
    return None


def _plain(field: str) -> str:
    return ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)
