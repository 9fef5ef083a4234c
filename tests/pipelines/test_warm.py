"""A task as a fork of a process that has loaded its modules: the same output, codes and ends as without."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import warm

TASK = """
import os, sys, time
def task():
    print("modules", sorted(m for m in ("torch", "mlflow") if m in sys.modules))
    print("parent", os.getppid(), "in", os.getcwd(), os.environ["TASK"])
    if os.environ["TASK"] == "waits":
        open("pid", "w").write(str(os.getpid()))
        time.sleep(60)
    if os.environ["TASK"] == "computes":
        import duckdb, numpy, pyarrow.compute, torch
        torch.set_num_threads(2)
        weight = torch.ones(600, 600, requires_grad=True)
        (torch.ones(600, 600) @ weight).sum().backward()
        rows = duckdb.sql("SELECT sum(range) AS n FROM range(3000000)").arrow().read_all()
        product = numpy.ones((600, 600)) @ numpy.ones((600, 600))
        print("computed", weight.grad[0, 0].item(), rows["n"][0].as_py(), product[0, 0])
    if os.environ["TASK"] == "owes":
        import atexit, threading
        atexit.register(lambda: open("owed", "a").write("handler "))
        late = lambda: (time.sleep(0.5), open("owed", "a").write("thread "))
        threading.Thread(target=late).start()
        sys.stdout.write("no line end")
    if os.environ["TASK"] == "fails":
        raise ValueError("of the task")
"""


def eventually(look, *, within_s: float):
    until_s = time.monotonic() + within_s
    while not (seen := look()) and time.monotonic() < until_s:
        time.sleep(0.05)
    return seen


@pytest.fixture(scope="module")
def python3():
    with warm.started() as script:
        assert eventually(Path(script).with_name("socket").exists, within_s=120)
        yield script


def command(python3: str, folder: Path) -> list[str]:
    module = folder / "ephemeral_component.py"
    module.write_text(TASK)
    given = {"inputs": {}, "outputs": {"outputFile": str(folder / "out.json")}}
    task = ["--component_module_path", str(module), "--function_to_execute", "task"]
    return [python3, "-m", warm.EXECUTOR, *task, "--executor_input", json.dumps(given)]


def done(python3: str, folder: Path, task: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"TASK": task, "_KFP_RUNTIME": "true"}
    return subprocess.run(
        command(python3, folder), cwd=folder, env=env, capture_output=True, text=True, timeout=100
    )


def test_a_task_finds_its_modules_loaded_and_is_a_process_of_its_own(python3, tmp_path):
    forked, plain = (done(python, tmp_path, "ends") for python in (python3, sys.executable))
    assert (forked.returncode, plain.returncode) == (0, 0), forked.stdout + forked.stderr
    assert "modules ['mlflow', 'torch']" in forked.stdout
    assert "modules []" in plain.stdout
    assert f"in {tmp_path} ends" in forked.stdout
    parents = [text.stdout.split("parent ")[1].split()[0] for text in (forked, plain)]
    assert parents[0] != parents[1] == str(os.getpid())


def test_threads_of_torch_duckdb_and_numpy_work_in_a_fork(python3, tmp_path):
    computed = done(python3, tmp_path, "computes")
    assert "computed 600.0 4499998500000 600.0" in computed.stdout, computed.stdout + computed.stderr


def test_what_a_task_owes_at_its_end_is_done(python3, tmp_path):
    ended = done(python3, tmp_path, "owes")
    assert ended.returncode == 0
    assert "no line end" in ended.stdout
    assert (tmp_path / "owed").read_text() == "thread handler "


def test_a_task_that_fails_says_so_and_why(python3, tmp_path):
    for python in (python3, sys.executable):
        failed = done(python, tmp_path, "fails")
        assert failed.returncode == 1
        assert "ValueError: of the task" in failed.stderr


def test_who_ends_the_one_that_asked_ends_the_task(python3, tmp_path):
    env = os.environ | {"TASK": "waits", "_KFP_RUNTIME": "true"}
    asked = subprocess.Popen(command(python3, tmp_path), cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=60)
    task = int((tmp_path / "pid").read_text())
    asked.kill()
    asked.wait()
    assert eventually(lambda: not Path(f"/proc/{task}").exists(), within_s=20)


def test_a_task_that_is_killed_ends_the_one_that_asked_as_it_would(python3, tmp_path):
    env = os.environ | {"TASK": "waits", "_KFP_RUNTIME": "true"}
    asked = subprocess.Popen(command(python3, tmp_path), cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=60)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert asked.wait(20) == -signal.SIGKILL


def test_anything_else_is_python_itself(python3):
    said = subprocess.run([python3, "-c", "print(6 * 7)"], capture_output=True, text=True, timeout=60)
    assert said.stdout == "42\n"


def test_the_process_ends_with_the_block_and_its_tasks_with_it(tmp_path):
    with warm.started() as script:
        assert eventually(Path(script).with_name("socket").exists, within_s=120)
        env = os.environ | {"TASK": "waits", "_KFP_RUNTIME": "true"}
        run = command(script, tmp_path)
        asked = subprocess.Popen(run, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
        assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), within_s=60)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 40
    assert asked.wait(20) != 0
    assert not Path(script).exists()
