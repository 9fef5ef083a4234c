"""Child processes that end with the process that started them, however that one ends, and not by the
terminal's Ctrl-C.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

# Asks Linux for a signal on the parent's death (prctl 1), then becomes the command: safe beside threads,
# unlike a `preexec_fn`. A parent that died before the question is noticed by its id.
_GUARD = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[2]))\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)
STOP_S = 15.0


def start(
    command: list[str], *, log: Path, environment: dict[str, str], orphaned: signal.Signals = signal.SIGTERM
) -> subprocess.Popen[bytes]:
    """Starts `command` (its first part an absolute path), its output appended to `log`. Call it from the main
    thread: Linux takes the end of the starting thread for the parent's. orphaned: the signal that ends it
    with its parent.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    guarded = [sys.executable, "-S", "-c", _GUARD, str(os.getpid()), str(int(orphaned)), *command]
    with log.open("ab") as out:
        return subprocess.Popen(
            guarded, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, process_group=0
        )


def stop(process: subprocess.Popen[bytes], timeout_s: float = STOP_S) -> int:
    """SIGTERM, SIGKILL after `timeout_s`; returns the exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
