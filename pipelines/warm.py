"""Tasks of a local run as forks of one process that has loaded what most of them load: torch, transformers
and MLflow take ten seconds of a core, and a run has twenty tasks. A task stays a process of its own.

    python -m pipelines.warm SOCKET    # ends when its standard input does

KFP starts a task as `sys.executable -m kfp.dsl.executor_main ...`. That is here a script that hands
arguments, environment and standard files to this process, which forks; until it is ready, and for anything
else, the script is Python itself.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

EXECUTOR = "kfp.dsl.executor_main"
# Nothing of these may compute while it is loaded: threads do not come along in a fork.
LOADED = ("kfp.dsl.executor", "crops.retriever.encoder", "crops.engines.session", "mlflow", "mlflow.pyfunc")
# For a client to say what it wants; both ends are on this machine.
TOLD_WITHIN_S = 10.0
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m {executor}" ] && [ -S {socket} ]; then exec {python} -IS {client} {socket} "$@"; fi
exec {python} "$@"
"""

Order = dict[str, Any]  # arguments (of Python), environment, folder


class Task(NamedTuple):
    """A fork at work: its process id, a file that can be read when it has ended, and who asked for it."""

    pid: int
    end: int
    client: socket.socket


@contextlib.contextmanager
def started() -> Iterator[str]:
    """The path of such a script; inside of the block the process behind it runs. Python's own path where
    nothing in the folder for temporary files may be executed.
    """
    with tempfile.TemporaryDirectory(prefix="crops-warm-") as name:
        folder, address = Path(name), Path(name) / "socket"
        words = {
            "python": sys.executable,
            "socket": address,
            "client": Path(__file__).with_name("ask_warm.py"),
        }
        script = folder / "python3"
        quoted = {key: shlex.quote(str(word)) for key, word in words.items()}
        script.write_text(PYTHON.format(executor=EXECUTOR, **quoted), encoding="utf-8")
        script.chmod(0o755)
        if not os.access(script, os.X_OK):
            yield sys.executable
            return
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.warm", str(address)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"_KFP_RUNTIME": "true"},
        )
        try:
            yield str(script)
        finally:
            if not address.exists():  # it is still loading
                process.kill()
            process.communicate()  # its standard input ends


def serve(address: str) -> None:
    """Forks a task per connection to the Unix socket `address` until standard input ends; in the fork it
    raises what the task raises, and does not return from one that ends well.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's, which ends its tasks
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # what stands is not looked through, and so not copied, in every fork
    door, own = socket.socket(socket.AF_UNIX), sys.stdin.fileno()
    door.bind(f"{address}.new")
    door.listen()
    os.rename(f"{address}.new", address)  # what is seen can be connected to
    tasks: dict[int, Task] = {}  # by either of the files that are watched
    watch = select.poll()
    watch.register(own, select.POLLIN)
    watch.register(door, select.POLLIN)
    while True:
        for file, _ in watch.poll():
            if file == own:
                for task in tasks.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(task.pid, signal.SIGTERM)
                return
            if file == door.fileno():
                client, _ = door.accept()
                try:
                    order, files = _told(client)
                except (OSError, ValueError):
                    client.close()
                    continue
                if (pid := os.fork()) == 0:
                    for other in (door, client, *(task.client for task in tasks.values())):
                        other.close()
                    _become(order, files)
                for number in files:
                    os.close(number)
                task = Task(pid, os.pidfd_open(pid), client)
                tasks[task.end] = tasks[client.fileno()] = task
                watch.register(task.end, select.POLLIN)
                watch.register(client, 0)  # its hanging up alone
            elif file in tasks:
                task = tasks[file]
                if file != task.end:  # who asked for it is gone
                    os.kill(task.pid, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(task.pid, 0)[1])
                for watched in (task.end, task.client.fileno()):
                    watch.unregister(watched)
                    del tasks[watched]
                os.close(task.end)
                with contextlib.suppress(OSError), task.client:
                    task.client.sendall(str(code).encode())


def _told(client: socket.socket) -> tuple[Order, list[int]]:
    """What `client` asks for, and its three standard files."""
    client.settimeout(TOLD_WITHIN_S)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    told = b""
    while part := client.recv(1 << 16):
        told += part
    return json.loads(told), files


def _become(order: Order, files: list[int]) -> NoReturn:
    """This process as the task, with `files` as its standard files."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["", *order["arguments"][2:]]
    runpy.run_module(EXECUTOR, run_name="__main__", alter_sys=True)
    # Taking thousands of loaded modules apart takes a second or two: what is owed at an end is done, no more.
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing does in its forks
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
