"""The cores of a process: planted control groups of both versions, and a real one where there is root."""

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pytest

from crops import cores
from crops.release.triton import repository
from tests.serving import releases

CPU_V1 = Path("/sys/fs/cgroup/cpu")
TREE = Path(__file__).resolve().parents[2]


def planted(root, groups, mounts, files):
    """/proc/self and /sys/fs/cgroup below `root`: lines of both files, and path to content."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("\n".join(groups) + "\n")
    (proc / "mountinfo").write_text("\n".join(mounts) + "\n")
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


ROOT_DISK = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"
V2 = "31 22 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 22 0:29 {} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "33 22 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
V1_GROUPS = ["9:memory:/m", "4:cpu,cpuacct:/docker/7f", "1:name=systemd:/docker/7f", "0::/"]


def v1(folder, quota_us, period_us=100_000):
    name = f"cpu,cpuacct/{folder}/".replace("//", "/")
    return {f"{name}cpu.cfs_quota_us": str(quota_us), f"{name}cpu.cfs_period_us": str(period_us)}


CASES = {
    # A container sees its own group as the top.
    "v2 in a container": (["0::/"], [ROOT_DISK, V2], {"cpu.max": "200000 100000"}, 2.0),
    "v2 without a quota": (["0::/"], [V2], {"cpu.max": "max 100000"}, None),
    "v2 on the host, whose top has no file": (["0::/a"], [V2], {"a/cpu.max": "50000 100000"}, 0.5),
    "v2 nested: the smallest on the way up": (
        ["0::/pod/box/inner"],
        [V2],
        {
            "pod/cpu.max": "300000 100000",
            "pod/box/cpu.max": "150000 100000",
            "pod/box/inner/cpu.max": "max 100000",
        },
        1.5,
    ),
    "v2: a sibling's quota is not ours": (
        ["0::/pod/a"],
        [V2],
        {"pod/a/cpu.max": "400000 100000", "pod/b/cpu.max": "100000 100000"},
        4.0,
    ),
    "v1 in a container that sees its own group alone": (
        V1_GROUPS,
        [MEMORY, V1.format("/docker/7f")],
        v1("", 400_000),
        4.0,
    ),
    "v1 with the host's whole tree": (
        V1_GROUPS,
        [V1.format("/")],
        v1("docker/7f", 250_000) | v1("docker", -1) | v1("", -1),
        2.5,
    ),
    "v1 nested, with a period of its own": (
        V1_GROUPS,
        [V1.format("/")],
        v1("docker/7f", 800_000) | v1("docker", 30_000, 10_000),
        3.0,
    ),
    "v1 without a quota": (V1_GROUPS, [V1.format("/docker/7f")], v1("", -1), None),
    "v1 of another group's mount": (V1_GROUPS, [V1.format("/elsewhere")], v1("", 100_000), 1.0),
    "both, CPU under v1": (
        [*V1_GROUPS[:3], "0::/docker/7f"],
        [V2.replace("cgroup rw,nosuid", "cgroup/unified rw,nosuid"), V1.format("/docker/7f")],
        v1("", 300_000) | {"unified/docker/7f/cgroup.procs": "1"},
        3.0,
    ),
    "what is no number is no quota": (["0::/"], [V2], {"cpu.max": "lots"}, None),
    "no control groups": ([], [ROOT_DISK], {}, None),
}


@pytest.mark.parametrize(("groups", "mounts", "files", "expected"), CASES.values(), ids=CASES)
def test_a_planted_quota(tmp_path, groups, mounts, files, expected):
    assert cores.quota(planted(tmp_path, groups, mounts, files)) == expected


def test_a_system_without_proc_has_no_quota(tmp_path):
    assert cores.quota(tmp_path) is None
    assert cores.count(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("10000 100000", 1),
        ("100000 100000", 1),
        ("190000 100000", 1),
        ("6400000 100000", 64),
        ("max 100000", 64),
    ],
)
def test_a_node_of_64_cores(tmp_path, monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    assert cores.count(planted(tmp_path, ["0::/"], [V2], {"cpu.max": quota})) == expected


def test_a_space_in_a_mount_point(tmp_path):
    mount = V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/my\\040groups ")
    planted(tmp_path, ["0::/"], [mount], {"my groups/cpu.max": "100000 100000"})
    assert cores.quota(tmp_path) == 1.0


def said(code, *, group=None, **variables):
    """What the code prints in a process of its own, which joins the control group before anything else."""
    environment = {k: v for k, v in os.environ.items() if k != cores.OPENMP} | {
        "PYTHONPATH": str(TREE),
        **variables,
    }
    join = None if group is None else lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        preexec_fn=join,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split()


def quota_1(group, cores):
    (group / "cpu.cfs_quota_us").write_text(str(100_000 * cores if cores else -1))


def quota_2(group, cores):
    (group / "cpu.max").write_text(f"{100_000 * cores} 100000" if cores else "max")


def top_2():
    """Where control groups of version 2 are mounted, with the controller of CPU time; None: nowhere."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    tops = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    return next((top for top in tops if "cpu" in (top / "cgroup.controllers").read_text().split()), None)


@pytest.fixture
def one_core():
    """A real group of one core, and one without a quota inside, which is the process's: of version 2 where
    that has the controller, else of version 1.
    """
    top, quota = (CPU_V1, quota_1) if (newer := top_2()) is None else (newer, quota_2)
    if os.geteuid() != 0 or not os.access(top / "cgroup.procs", os.W_OK):
        pytest.skip("no control group that this process may write")
    outer = top / f"crops-test-{uuid.uuid4().hex}"
    inner = outer / "inner"
    made = []
    try:
        for folder, cores_of_it in ((outer, 1), (inner, None)):
            if quota is quota_2:
                (folder.parent / "cgroup.subtree_control").write_text("+cpu")
            folder.mkdir()
            made.append(folder)
            quota(folder, cores_of_it)
        yield inner
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


ALL = """
from crops import cores
cores.hold()
import duckdb, faiss, numpy, os, pathlib, pyarrow, torch
from crops.engines import session
from crops.release.triton.repository import Instances, config
from serving.gateway.settings import Settings
with session.opened("duckdb", scratch=pathlib.Path("/tmp")) as house:
    (held,) = house.backend.raw_sql("select current_setting('threads')").fetchone()
instances = config("m", 4, Instances()).split("count: ")[1].split()[0]
print(cores.count(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads(), faiss.omp_get_max_threads())
print(pyarrow.cpu_count(), held, instances, Settings(manifest="m").search_threads)
"""


def test_in_a_real_group_every_library_takes_one_thread(one_core):
    assert said(ALL, group=one_core) == ["1"] * 8
    outside = str(cores.count())
    assert said(ALL) == [outside] * 8, "and outside as many as there are"


def test_in_a_real_group_an_exported_model_takes_no_thread_of_its_own(one_core, tmp_path):
    """ONNX Runtime counts the machine's cores wherever nothing is said."""
    folder = releases.build(tmp_path, 1)[0].files
    code = f"""
import os, sys
from pathlib import Path
from crops import cores
cores.hold()
from crops.release.encoder import OnnxEncoder
before = len(os.listdir("/proc/self/task"))
encoder = OnnxEncoder(Path({folder!r}))
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert said(code, group=one_core) == ["0"]
    assert said(code) == [str(cores.count() - 1)], "beside the one that calls"


def test_in_a_real_container(engine, tmp_path):
    """Of a root file system that is this machine's, read-only: only the groups are the container's own."""
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    engine.api.import_image(src=str(tmp_path / "empty.tar"), repository="crops-empty", tag="test")
    places = [*("/usr", "/lib", "/lib64", "/bin", "/etc"), str(TREE), sys.prefix, sys.base_prefix]
    volumes = [f"{place}:{place}:ro" for place in dict.fromkeys(places) if Path(place).exists()]
    try:
        for nano_cpus, expected in ((1_000_000_000, "1"), (None, str(cores.count()))):
            printed = engine.containers.run(
                "crops-empty:test",
                [sys.executable, "-c", "from crops import cores; print(cores.count())"],
                environment={"PYTHONPATH": str(TREE)},
                volumes=volumes,
                network_disabled=True,
                remove=True,
                **({"nano_cpus": nano_cpus} if nano_cpus else {}),
            )
            assert printed.decode().split() == [expected]
    finally:
        engine.images.remove("crops-empty:test", force=True)


def test_a_task_whose_libraries_are_loaded_already_lowers_them(one_core):
    code = """
import faiss, numpy, pyarrow, torch
from crops import cores
cores.hold()
print(torch.get_num_threads(), faiss.omp_get_max_threads(), pyarrow.cpu_count())
"""
    assert said(code, group=one_core) == ["1"] * 3


def test_who_has_chosen_keeps_the_choice(one_core):
    code = "from crops import cores; cores.hold(); import torch; print(torch.get_num_threads())"
    assert said(code, group=one_core, OMP_NUM_THREADS="2") == ["2"]


@pytest.mark.parametrize(
    ("load", "chosen", "expected"),
    [(0.5, None, "None"), (1000.0, None, "PASSIVE"), (1000.0, "ACTIVE", "ACTIVE")],
)
def test_threads_spin_only_where_nobody_else_wants_the_cores(load, chosen, expected):
    code = f"""
import os
os.getloadavg = lambda: ({load}, 0.0, 0.0)
os.environ.pop("OMP_WAIT_POLICY", None)
os.environ |= {{"OMP_WAIT_POLICY": {chosen!r}}} if {chosen!r} else {{}}
from crops import cores
cores.hold()
print(os.environ.get("OMP_WAIT_POLICY"))
"""
    assert said(code) == [expected]


def test_nobody_else_counts_the_machines_cores():
    """One home for the number: `os.cpu_count` and its like know no quota."""
    counted = re.compile(r"cpu_count\(|sched_getaffinity|hardware_concurrency|process_cpu_count")
    files = [
        f
        for folder in ("crops", "serving", "components", "pipelines", "benchmarks")
        for f in (TREE / folder).rglob("*.py")
    ]
    assert len(files) > 200
    found = [str(f.relative_to(TREE)) for f in files if counted.search(f.read_text())]
    assert found == ["crops/cores.py"]


def test_a_model_in_triton_carries_what_it_needs():
    assert "cores.py" in repository.LIBRARY
