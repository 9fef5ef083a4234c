"""What a person sees of a run, and that nothing that it started outlives it."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from crops.stages.plug import MARK
from pipelines import screen


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(voice="normal", out=None, **usual):
    out = io.StringIO() if out is None else out
    return screen.Screen(io.StringIO(), out, total=3, usual=usual, voice=voice), out


def mark(**entry):
    return f"    {MARK}{json.dumps(entry)}\n"


def ends(stage, seconds=1.0):
    return mark(
        stage=stage, seconds=seconds, memory_gb=0.75, numbers={"rows": 1_000, "share": 0.25}, notes=["odd"]
    )


def test_stages_are_counted_whether_they_run_or_are_there_already():
    view, out = shown()
    view.write("a line of some library\n" + ends("validate"))
    view.cached("augment")
    view.cached("finish")  # no stage of the user's
    view.write(ends("train crops")[:20])
    view.write(ends("train crops")[20:])
    assert [line.split("] ")[0] for line in out.getvalue().splitlines() if "]" in line] == [
        "[ 1/3",
        "[ 2/3",
        "[ 3/3",
    ]
    assert "validate                       1.0 s   0.8 GB  rows 1,000  share 0.25" in out.getvalue()
    assert "note: odd" in out.getvalue()
    assert "as before" in out.getvalue()
    assert "some library" not in out.getvalue()
    assert "some library" in view.log.getvalue()


def test_on_a_terminal_the_running_stage_has_a_line_with_what_it_does(monkeypatch):
    monkeypatch.setattr(screen, "EVERY_S", 0.01)
    view, out = shown(out=Terminal(), validate=10.0, theta=100.0)
    with view.alive():
        view.write(
            "12:00 - INFO - Executing task \x1b[96m'theta'\x1b[0m\n" + mark(stage="theta", begins=True)
        )
        view.write("    step 40 of 200\n    }\n[KFP Executor 2026-11-27 00:45:55,270 INFO]: x\n")
        view.write('    "outputFile": "x.json"\n2026/11/27 10:52:44 INFO mlflow.store.db.utils: tables\n')
        time.sleep(0.1)
    line = out.getvalue().split("\r\x1b[K")[-2]
    assert line.startswith("[ 1/3] theta 0:00  (in all 0:00, about 1:")
    assert line.rstrip().endswith("left)  step 40 of 200")


def test_without_a_terminal_a_long_stage_gives_a_sign_of_life(monkeypatch):
    monkeypatch.setattr(screen, "EVERY_S", 0.01)
    monkeypatch.setattr(screen, "SIGN_OF_LIFE_S", 0.02)
    view, out = shown()
    with view.alive():
        view.write(mark(stage="theta", begins=True))
        time.sleep(0.3)
    lines = out.getvalue().splitlines()
    assert 1 <= len(lines) <= 5, "each time after twice as long"
    assert set(lines) == {"[ 1/3] theta 0:00 and still at it"}


def test_quiet_says_nothing_and_verbose_everything():
    quiet, out = shown("quiet")
    quiet.write("a line\n" + ends("validate"))
    assert out.getvalue() == ""
    verbose, out = shown("verbose")
    verbose.write("a line\n")
    assert out.getvalue() == "a line\n"


REPORT = {
    "recall_at_100": {
        "truth": None,
        "qr_raw": {"bm25": 0.564, "new_system": None, "crops": 0.597},
        "own": {"bm25": 1.0},
    },
    "headline": None,
    "gate": {"verdict": "reject", "reasons": ["qr_raw: -0.3 points"]},
    "release": {"uri": None},
}


def test_the_end_has_the_table_of_whatever_was_measured_the_verdict_and_the_next_command():
    text = "\n".join(screen.outcome(REPORT, Path("runs/x"), "sqlite:///a", "sqlite:///a"))
    assert "bm25  new_system   crops" in text
    assert "  56.4           –    59.7   consumed after a reformulation" in text
    assert "own " in text
    assert "verdict: REJECT\n  qr_raw: -0.3 points" in text
    assert "report:  runs/x/report.html" in text
    assert "`crops serve` searches with the champion" in text
    promoted = {**REPORT, "release": {"uri": "models:/crops/2"}}
    text = "\n".join(screen.outcome(promoted, Path("runs/x"), "sqlite:///b", "sqlite:///a"))
    assert "crops serve --registry sqlite:///b --challenger models:/crops/2" in text


CODE = """
import subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from crops.cli.support import guarded
from pipelines.local import no_orphans
def task():
    command = ["sh", "-c", "echo $$; sleep 300 & echo $!; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line.strip(), flush=True)
def main():
    with no_orphans():
        if sys.argv[1] == "thread":
            with ThreadPoolExecutor(1) as pool:
                pool.submit(task).result()
        else:
            task()
guarded(main)
"""


@pytest.mark.parametrize("where", ["main", "thread"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_no_process_behind(number, code, where):
    """To the process alone, as a supervisor sends it; its task waits for a process of its own."""
    command = [sys.executable, "-c", CODE, where]
    runner = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    pids = [int(runner.stdout.readline()) for _ in range(2)]
    runner.send_signal(number)
    _, errors = runner.communicate(timeout=60)
    assert runner.returncode == code, errors
    assert "Traceback" not in errors
    assert not [pid for pid in pids if alive(pid)]


def alive(pid):
    """Whether it runs: what has ended is there until process 1 asks for it, in its own time."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
