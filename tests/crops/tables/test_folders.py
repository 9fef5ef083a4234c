"""Nothing but what we wrote is replaced: foreign folders, inputs, mount points, links, two runs at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crops.errors import CropsError, InputError, StorageError
from crops.tables import folders


def write(out: Path, text: str = "new", **options) -> None:
    with folders.replacing(out, **options) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != folders.MARK
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda out: shutil.rmtree(out) or out.mkdir() or (out / "thesis.txt").write_text("mine"),
        lambda out: (out / "README").write_text("mine"),
        lambda out: (out / "deep" / "b").write_text("mine"),
        lambda out: (out / "deep" / "a").write_text("changed by hand"),
        lambda out: (out / "deep" / "link").symlink_to("/"),
        lambda out: (out / folders.MARK).write_text("{"),
        lambda out: (out / folders.MARK).unlink(),
        lambda out: (out / ".git").mkdir() or (out / ".git" / "HEAD").write_text("mine"),
    ],
)
def test_what_we_have_not_written_is_refused_and_stays(tmp_path, change):
    out = tmp_path / "out"
    write(out)
    change(out)
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(InputError, match="which crops has not written: name another folder"):
        write(out)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_what_we_wrote_an_empty_folder_and_a_copy_of_ours_are_replaced(tmp_path):
    write(tmp_path / "out", "old")
    (tmp_path / "out" / folders.TASK).write_text("{}")  # a pipeline's task leaves it there
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    (tmp_path / "empty" / "also").mkdir(parents=True)
    for name in ("out", "copy", "empty", "new"):
        write(tmp_path / name)
        assert content(tmp_path / name) == {"deep/a": "new"}


@pytest.mark.parametrize(
    ("out", "how"), [("logs", "is"), (".", "contains"), ("logs/x", "lies inside"), ("link/x", "lies inside")]
)
def test_an_input_is_neither_replaced_nor_written_into(tmp_path, out, how):
    write(tmp_path / "logs")
    (tmp_path / "link").symlink_to(tmp_path / "logs")
    with pytest.raises(InputError, match=f"{how} .*logs, which is read"):
        write(tmp_path / out, inputs=[tmp_path / "logs"])
    assert content(tmp_path / "logs") == {"deep/a": "new"}


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    write(tmp_path / "out", "old")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "there") == {"deep/a": "new"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "there"]


@pytest.mark.parametrize("name", ["file/out", "x" * 300, "loop/out", "/proc/out", "/proc/self/out"])
def test_a_name_that_cannot_be_is_refused_before_any_work(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(CropsError), folders.replacing(tmp_path / name):
        pytest.fail("the work has begun")


@pytest.fixture
def mounted(tmp_path):
    place = tmp_path / "volume"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place]).returncode:
        pytest.skip("not run: a mount needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_mount_point_gets_new_content(mounted):
    (mounted / "lost+found").mkdir()
    write(mounted, "old")
    with pytest.raises(ZeroDivisionError), folders.replacing(mounted) as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    assert content(mounted) == {"deep/a": "old"}
    write(mounted)
    assert content(mounted) == {"deep/a": "new"}
    assert {p.name for p in mounted.iterdir()} == {"deep", "lost+found", folders.MARK}
    (mounted / "mine").touch()
    with pytest.raises(InputError, match="holds mine"):
        write(mounted)


KILLED = """
import os, signal, sys
from pathlib import Path
from crops.tables import folders
calls, at, rename = [0], int(sys.argv[2]), os.rename
def renamed(*args, **more):
    calls[0] += 1
    if calls[0] == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(*args, **more)
os.rename = renamed
out = Path(sys.argv[1])
os.chdir(out)
with folders.replacing(out) as folder:
    for name in "abc":
        (folder / name).write_text("new")
"""


def test_a_kill_at_every_move_inside_of_a_folder_leaves_the_old_or_the_new(tmp_path):
    """Three old entries and the mark go, three new ones and the mark come: whatever was done by then, the
    next run finds a folder of ours, whole, and replaces it.
    """
    ends = set()
    for at in range(1, 12):
        out = tmp_path / f"out{at}"
        with folders.replacing(out) as folder:
            for name in "abc":
                (folder / name).write_text("old")
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(out), str(at)],
            cwd=os.getcwd(),
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        home = os.getcwd()
        os.chdir(out)
        try:
            with pytest.raises(ZeroDivisionError), folders.replacing(out):
                raise ZeroDivisionError
        finally:
            os.chdir(home)
        found = content(out)
        assert found in (dict.fromkeys("abc", "old"), dict.fromkeys("abc", "new")), at
        folders.refuse(out)
        ends.add((done.returncode, found["a"]))
    assert ends == {(-signal.SIGKILL, "old"), (-signal.SIGKILL, "new"), (0, "new")}


HOLDER = """
import sys, time
from pathlib import Path
from crops.tables import folders
with folders.replacing(Path(sys.argv[1])) as folder:
    (folder / "first").write_text("whole")
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_of_two_runs_the_second_says_so_and_leaves_the_first_alone(tmp_path):
    out = tmp_path / "out"
    holder = [sys.executable, "-c", HOLDER, str(out)]
    first = subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "in\n"
    with pytest.raises(InputError, match=rf"another run \(process {first.pid} on .*\) is writing there"):
        write(out)
    first.communicate("\n", timeout=60)
    assert first.returncode == 0
    assert content(out) == {"first": "whole"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    killed = subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdout.readline() == "in\n"
    killed.kill()
    killed.wait()
    write(out)  # a dead run holds nothing
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_held_can_be_replaced_by_its_holder(tmp_path):
    with folders.held(tmp_path / "out"):
        write(tmp_path / "out")
        with folders.held(tmp_path / "out"):
            write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / folders.MARK).read_text())["bytes"] == {"deep/a": 3}


def test_a_full_disk_that_only_a_librarys_text_tells_of_is_said_as_any(tmp_path):
    """As FAISS and safetensors word it, which write files themselves; other errors of theirs stay."""
    full = r"out: cannot write: No space left on device; free the space"
    for text in (
        "write error in x: 1 != 2 (No space left on device)",
        "No space left on device (os error 28)",
    ):
        with pytest.raises(StorageError, match=full), folders.replacing(tmp_path / "out"):
            raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="another"), folders.replacing(tmp_path / "out"):
        raise RuntimeError("another")
    assert [*tmp_path.iterdir()] == []
