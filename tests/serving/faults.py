"""A served experiment, and what goes wrong below and beside it, drawn at random. No test in here."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from crops.arms import ARMS
from crops.experiment import features
from crops.experiment.assign import Assigner
from serving.triton import install, launch
from tests.serving import releases as toys
from tests.serving import served
from tests.serving.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
DISK_BYTES = 64 << 20
BACK_S = 240.0
ORDERLY = signal.SIGTERM
BLOCK = 4096


class Stack:
    """An experiment on two toy releases as `crops serve` serves it, with a Redis, on a disk of its own where
    one can be mounted.
    """

    def __init__(self, folder: Path) -> None:
        if not install.ready():
            pytest.skip("no Triton server: make triton")
        if (compiler := shutil.which("cc")) is None:
            pytest.skip("not run: no C compiler for the disk that does not answer")
        self.folder, self.events, self.stalled = folder, folder / "events", folder / "stalled"
        self.events.mkdir()
        self.disk = _mounted(self.events)
        self.slow = folder / "stalled_fsync.so"
        source = Path(__file__).with_name("stalled_fsync.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self.slow, source, "-ldl"], check=True)
        self.redis = RedisServer(folder)
        releases = toys.build(folder / "releases")
        self.releases = {arm: r.uri for arm, r in zip(ARMS, releases, strict=True)}
        one = features.Experiment(
            name="faults",
            salt="faults",
            coverage=0.9,
            start=datetime(2026, 1, 1, tzinfo=UTC),
            **self.releases,
        )
        payload = features.render([one])
        (folder / "features.json").write_text(json.dumps(payload))
        self.assigner = Assigner(payload)
        (port,) = launch.free_ports(1)
        self.address = f"http://127.0.0.1:{port}"
        settings = {"features": str(folder / "features.json"), "redis": self.redis.url}
        self._command = served.command(folder, releases, port=port, **settings)
        self.process, self.orphans = self._started(), list[psutil.Process]()

    def _started(self) -> subprocess.Popen[bytes]:
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(self.slow),
            "STALL_WHILE": str(self.stalled),
            "STALL_UNDER": f"{self.events}/",
        }
        with (self.folder / "serve.log").open("ab") as log:
            return subprocess.Popen(self._command, cwd=ROOT, env=variables, stdout=log, stderr=log)

    def parts(self, mark: str) -> list[psutil.Process]:
        """Running processes of the stack with `mark` in their command line."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    line = process.cmdline()
                    # A child is a guard first, which has the command at its end (serving.children).
                    if line[1:3] != ["-S", "-c"] and any(mark in word for word in line):
                        found.append(process)
        return found

    def kill_while_starting(self) -> None:
        """SIGKILL of a model's process while Triton loads it, and of the gateway before it is ready."""
        for mark in (STUBS, GATEWAY):
            end = time.monotonic() + BACK_S
            while not (starting := self.parts(mark)):
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < end, self.log()
                time.sleep(0.01)
            for process in starting:
                process.kill()

    def wait_well(self) -> None:
        """Returns once users of both arms are answered by their own arm's release."""
        end, told = time.monotonic() + BACK_S, "nothing"
        users = {
            arm: next(u for u in _names() if self.assigner.assign(u).arm == arm) for arm in self.releases
        }
        with httpx.Client(base_url=self.address, timeout=5) as client:
            while time.monotonic() < end:
                assert self.process.poll() is None, self.log()
                try:
                    told = {
                        arm: client.post("/v1/search", json=_body(user)).json().get("arm")
                        for arm, user in users.items()
                    }
                    if all(arm == one for arm, one in told.items()):
                        return
                except (httpx.HTTPError, ValueError):
                    pass
                time.sleep(0.2)
        raise AssertionError(f"not well after {BACK_S} s: {told}; {self.log()}")

    def end(self, number: signal.Signals) -> None:
        """SIGTERM or SIGKILL of all of it; the children of a killed one end with it, but for a model's
        process to which Triton had not said a word: the next start ends that (launch.end_orphans).
        """
        children, stubs = psutil.Process(self.process.pid).children(recursive=True), self.parts(STUBS)
        self.process.send_signal(number)
        self.process.wait(60)
        _gone, left = psutil.wait_procs(children, timeout=30)
        if number == signal.SIGKILL:
            self.orphans += [process for process in left if process in stubs]
        left = [process for process in left if process not in self.orphans]
        assert not left, f"they live on: {left}"

    def wait_no_orphan(self) -> None:
        """Returns once nothing of an earlier life is left."""
        _gone, left = psutil.wait_procs(self.orphans, timeout=10)
        assert not left, f"they live on after a start: {left}"

    def start(self) -> None:
        """Starts it again after its end."""
        self.process = self._started()

    def log(self) -> str:
        """The ends of the logs."""
        names = ("serve.log", "state/gateway.log")
        paths = [self.folder / name for name in names]
        return "\n".join(f"{p.name}: {p.read_text(errors='replace')[-2000:]}" for p in paths if p.exists())

    def close(self) -> None:
        """Ends what still runs."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.redis.stop()
        if self.disk:
            subprocess.run(["umount", "-l", str(self.events)], check=True)


def _names() -> Iterator[str]:
    number = 0
    while True:
        yield f"watch{(number := number + 1)}"


def _body(user: str) -> dict[str, object]:
    return {"query": f"subject1 {time.monotonic_ns():x}", "user_id": user, "k": 1}


def _mounted(folder: Path) -> str:
    """The file system of a small disk that was mounted there: ext4, which can be frozen, where a file can be
    a disk; else tmpfs; else empty.
    """
    image = folder.with_name("disk")
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    made = ["mkfs.ext4", "-q", "-m", "0", str(image)]
    ways = {
        "ext4": ["-o", "loop", str(image)],
        "tmpfs": ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "crops-events"],
    }
    if os.geteuid() != 0:
        return ""
    if not all(map(shutil.which, ("mkfs.ext4", "fsfreeze"))) or subprocess.run(made, check=False).returncode:
        del ways["ext4"]
    for name, options in ways.items():
        command = ["mount", *options, str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return name
    return ""


GATEWAY, TRITON, STUBS = "serving.gateway", "tritonserver", "triton_python_backend_stub"


@contextlib.contextmanager
def signalled(mark: str, number: signal.Signals, stack: Stack, rng: random.Random) -> Iterator[None]:
    """Some of a part's processes, at least one, get a signal; what is stopped goes on afterwards."""
    parts = sorted(stack.parts(mark), key=lambda p: p.pid)
    hit = rng.sample(parts, rng.randint(1, len(parts))) if parts else []
    for process in hit:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    yield
    for process in hit if number == signal.SIGSTOP else ():
        with contextlib.suppress(psutil.NoSuchProcess):  # given up and killed meanwhile
            process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def all_ended(number: signal.Signals, stack: Stack, _rng: random.Random) -> Iterator[None]:
    """As a machine that is shut down, or loses its current, and comes up again."""
    stack.end(number)
    yield
    stack.start()


@contextlib.contextmanager
def full_disk(stack: Stack, rng: random.Random) -> Iterator[None]:
    """No room on the event log's disk but for a few blocks."""
    ballast = stack.events / "ballast"
    with ballast.open("wb") as file:
        room = os.statvfs(stack.events).f_bavail - rng.randrange(4)
        with contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, room) * BLOCK)
    yield
    ballast.unlink()


@contextlib.contextmanager
def no_growth(stack: Stack, _rng: random.Random) -> Iterator[None]:
    """A limit on files that the gateway has met already: its next write takes a part, or nothing."""
    hit = stack.parts(GATEWAY)
    for process in hit:
        with contextlib.suppress(psutil.Error):
            sizes = [p.stat().st_size for p in stack.events.glob("*.open")]
            process.rlimit(resource.RLIMIT_FSIZE, (max(sizes, default=0) + 100, resource.RLIM_INFINITY))
    yield
    for process in hit:
        with contextlib.suppress(psutil.Error):
            process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def stalled_fsync(stack: Stack, _rng: random.Random) -> Iterator[None]:
    """The disk takes writes and does not say when they are durable."""
    stack.stalled.touch()
    yield
    stack.stalled.unlink()


@contextlib.contextmanager
def frozen_disk(stack: Stack, _rng: random.Random) -> Iterator[None]:
    """The disk takes nothing and answers nothing: who writes is stuck in the kernel, deaf to signals."""
    subprocess.run(["fsfreeze", "--freeze", str(stack.events)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(stack.events)], check=True)


@contextlib.contextmanager
def redis_hit(number: signal.Signals, stack: Stack, _rng: random.Random) -> Iterator[None]:
    """Redis dies, and comes back empty; or it is silent."""
    stack.redis.process.send_signal(number)
    yield
    if number == signal.SIGSTOP:
        stack.redis.process.send_signal(signal.SIGCONT)
    else:
        stack.redis.process.wait(10)
        stack.redis.start()


@contextlib.contextmanager
def compaction(stack: Stack, rng: random.Random) -> Iterator[None]:
    """`crops compact` beside the running log; one in two is killed where it stands."""
    killed = rng.random() < 0.5
    process = subprocess.Popen(compact_command(stack), cwd=ROOT, stdout=subprocess.DEVNULL)
    yield
    if killed:
        process.kill()
    assert process.wait(120) == 0 or killed


def compact_command(stack: Stack) -> list[str]:
    """As an operator types it."""
    command = [sys.executable, "-m", "crops", "compact"]
    return [*command, "--events", str(stack.events), "--out", str(stack.folder / "tables")]


Fault = Callable[[Stack, random.Random], AbstractContextManager[None]]
BRIEF: dict[str, Fault] = {
    f"{number.name} of {name}": partial(signalled, mark, number)
    for name, mark in (("the gateway", GATEWAY), ("Triton", TRITON), ("stubs", STUBS))
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
}
BRIEF |= {f"{n.name} of Redis": partial(redis_hit, n) for n in (signal.SIGKILL, signal.SIGSTOP)}
BRIEF |= {"full disk": full_disk, "files do not grow": no_growth, "stalled fsync": stalled_fsync}
LONG: dict[str, Fault] = {
    **BRIEF,
    "SIGTERM of all": partial(all_ended, signal.SIGTERM),
    "SIGKILL of all": partial(all_ended, signal.SIGKILL),
    "compaction": compaction,
    "frozen disk": frozen_disk,  # not with another one: that would write there, and be stuck itself
}
NEEDS = {full_disk: ("ext4", "tmpfs"), frozen_disk: ("ext4",)}


def happen(stack: Stack, faults: dict[str, Fault], seed: int, seconds: float, trail: list[str]) -> None:
    """Lets `faults` happen for so long, as `seed` draws them: each for 0 to 4 s, one in three with another
    one meanwhile, 0 to 3 s apart. `trail` gets what happened, with the seconds at which it did.
    """
    rng, began_s = random.Random(seed), time.monotonic()
    names = [name for name in sorted(faults) if stack.disk in NEEDS.get(faults[name], (stack.disk,))]

    def one(*, within: str | None) -> None:
        # Two that end the whole stack, or hold the same thing, are one.
        name = rng.choice(
            [n for n in names if within is None or not ({n, within} & {*LONG} - {*BRIEF} or n == within)]
        )
        held_s = rng.random() * 4
        trail.append(
            f"{time.monotonic() - began_s:.1f} s: {name} for {held_s:.1f} s" + (", within" if within else "")
        )
        assert stack.process.poll() is None, f"it gave up\n{stack.log()}"
        with faults[name](stack, rng):
            if within is None and name in BRIEF and rng.random() < 1 / 3:
                time.sleep(held_s / 2)
                one(within=name)
            time.sleep(held_s)

    while time.monotonic() - began_s < seconds:
        one(within=None)
        time.sleep(rng.random() * 3)
