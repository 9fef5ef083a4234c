"""Memory of a process: planted control groups, a real one where there is root, and work that does not fit."""

import contextlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops import memory
from crops.errors import InputError
from crops.tables import artifacts, records
from tests.crops.test_cores import ROOT_DISK, V1, V2, planted

MEMORY_V1 = V1.replace("cpu,cpuacct", "memory")
MACHINE = {"../../../proc/meminfo": "MemTotal: 8000 kB\nMemFree: 1 kB\nSwapTotal: 2000 kB"}
KB = 1024

CASES = {
    "no group": (["0::/"], [V2], {}, 10_000 * KB),
    "v2 without a limit": (["0::/"], [V2], {"memory.max": "max"}, 10_000 * KB),
    "v2: the machine's swap comes on top": (
        ["0::/"],
        [ROOT_DISK, V2],
        {"memory.max": "1000"},
        1_000 + 2_000 * KB,
    ),
    "v2 without swap, as Kubernetes sets it": (
        ["0::/"],
        [V2],
        {"memory.max": "1000", "memory.swap.max": "0"},
        1_000,
    ),
    "v2 nested: the smallest on the way up": (
        ["0::/pod/box"],
        [V2],
        {
            "pod/memory.max": "500",
            "pod/memory.swap.max": "0",
            "pod/box/memory.max": "900",
            "pod/box/memory.swap.max": "0",
        },
        500,
    ),
    "v1 that does not count swap": (
        ["9:memory:/m", "4:cpu,cpuacct:/other", "0::/"],
        [V1.format("/"), MEMORY_V1.format("/")],
        {"memory/m/memory.limit_in_bytes": "3000"},
        3_000 + 2_000 * KB,
    ),
    "v1 that counts swap": (
        ["9:memory:/m"],
        [MEMORY_V1.format("/")],
        {"memory/m/memory.limit_in_bytes": "3000", "memory/m/memory.memsw.limit_in_bytes": "4000"},
        4_000,
    ),
    "v1 without a limit": (
        ["9:memory:/"],
        [MEMORY_V1.format("/")],
        {"memory/memory.limit_in_bytes": str(2**63 - 4096)},
        10_000 * KB,
    ),
}


@pytest.mark.parametrize(("groups", "mounts", "files", "expected"), CASES.values(), ids=CASES)
def test_a_planted_limit(tmp_path, groups, mounts, files, expected):
    assert memory.limit(planted(tmp_path, groups, mounts, files | MACHINE)) == expected


def test_without_proc_it_is_the_machines(tmp_path):
    assert memory.limit(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def group():
    """A real control group with 300 MB and no swap, whichever version there is."""
    tree = Path("/sys/fs/cgroup")
    first = (tree / "memory") if (tree / "memory").is_dir() else tree
    name = first / f"crops-test-{uuid.uuid4().hex[:8]}"
    most = "memory.max" if first == tree else "memory.limit_in_bytes"
    try:
        name.mkdir()
        (name / most).write_text(str(300 * 10**6))
    except OSError as error:
        with contextlib.suppress(OSError):
            name.rmdir()
        pytest.skip(f"no control group to be had: {error}")
    for swap, value in (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", str(300 * 10**6))):
        with contextlib.suppress(OSError):
            (name / swap).write_text(value)
    yield name
    name.rmdir()


def within(group, code):
    """What Python says of the code inside the group, and how it ended."""
    join = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    done = subprocess.run([sys.executable, "-c", join + code], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_in_a_real_group_a_table_that_is_too_large_is_refused_instead_of_killed(group, tmp_path):
    """The kernel is the judge: without the check it ends the same reading with SIGKILL."""
    (tmp_path / "documents").mkdir()
    rng = np.random.default_rng(0)
    texts = pa.array([rng.bytes(500).hex() for _ in range(400_000)])  # 400 MB that no encoding makes small
    ids = pa.array([str(n) for n in range(400_000)])
    pq.write_table(
        pa.table({"doc_id": ids, "text": texts}), tmp_path / "documents/part-0.parquet", use_dictionary=False
    )
    read = f"""
from pathlib import Path
from crops import memory
from crops.errors import InputError
from crops.tables import artifacts, records
try:
    print(artifacts.read(Path({str(tmp_path)!r}), records.DOCUMENTS).num_rows)
except InputError as error:
    print(error)
"""
    code, told, trace = within(group, read)
    assert code == 0, trace
    assert "documents: read whole: at least 0.4 GB at once, and this process may hold 0.3 GB" in told
    code, _, _ = within(group, read.replace("try:", "memory.limit = lambda: 10**12\ntry:"))
    assert code == -9


def test_what_fits_is_read(tmp_path):
    rows = pa.table({"doc_id": ["a"], "text": ["b"]})
    artifacts.write(tmp_path, records.DOCUMENTS, rows)
    assert artifacts.read(tmp_path, records.DOCUMENTS).num_rows == 1


def test_a_refusal_names_place_need_and_limit(monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 2 * 10**9)
    memory.refuse("here", "vectors", 2 * 10**9)
    with pytest.raises(InputError, match=r"^here: vectors: at least 3\.5 GB at once, .* may hold 2\.0 GB; "):
        memory.refuse("here", "vectors", 35 * 10**8)


def test_the_peak_is_what_was_held_at_once():
    """Counted by the kernel in a process of its own: 300 MB that were freed before anybody asked."""
    code = "from crops import memory as m; b = m.peak(); x = b'1' * 300_000_000; del x; print(m.peak() - b)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 280_000_000 < int(done.stdout) < 330_000_000
