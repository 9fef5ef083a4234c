"""Runs `tritonserver` as a child process, the nvidia-pytriton wheel's or that of NVIDIA's container: explicit
model control.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crops.errors import ServiceError
from crops.release.triton import control
from serving import children, listening

PYTHON = sysconfig.get_python_version()
START_S = 60.0
LOOPBACK = "127.0.0.1"
ADDRESS = "CROPS_POD_IP"
# Loading a model is running its code, shared memory and logging reach files: all of these take the key.
CONTROL_APIS = "model-repository,shared-memory,trace,logging"
STUB, SERVER = "triton_python_backend_stub", 5  # its name, and which word of its command is the server's id
MODEL_OF_STUB = re.compile(rb"triton_python_backend_stub\0[^\0]*/([^/\0]+)/[0-9]+/model\.py\0")
ZOMBIE = "Z"
STOPPED = f"Tt{ZOMBIE}X"  # process states of proc(5): stopped, traced, zombie, dead
ARGUMENTS_AT = 45  # arg_start among the numbers that follow the name in /proc/PID/stat (proc(5))
NVIDIA = Path("/opt/tritonserver")  # where NVIDIA's container keeps its server and backends


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Triton's three ports on 127.0.0.1."""

    http: int
    grpc: int
    metrics: int


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(slots=True, kw_only=True)
class Server:
    """A running tritonserver."""

    process: subprocess.Popen[bytes]
    ports: Ports
    log: Path
    key: str = field(repr=False)  # of the control APIs
    loopback: str = LOOPBACK  # on which its HTTP answers

    @property
    def http(self) -> str:
        """Base URL of the KServe v2 API."""
        return f"http://{self.loopback}:{self.ports.http}"

    @property
    def grpc(self) -> str:
        """host:port of the gRPC API."""
        return f"127.0.0.1:{self.ports.grpc}"

    def wait_live(self, timeout_s: float = START_S) -> None:
        """Returns once it answers; a ServiceError that names its log where it ends or stays silent."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServiceError(
                    f"tritonserver ended with {self.process.returncode}; its log is {self.log}"
                )
            if control.live(self.http):
                self._hide_key()
                return
            time.sleep(0.05)
        raise ServiceError(f"tritonserver does not answer after {timeout_s:.0f} s; its log is {self.log}")

    def _hide_key(self) -> None:
        """Out of the process list, where every account of the machine could read it: Triton, which has read
        its arguments by now, takes the key in no other way. A system that forbids it keeps the key there.
        """
        proc = Path("/proc") / str(self.process.pid)
        with contextlib.suppress(OSError, ValueError):
            start = int((proc / "stat").read_text().rpartition(")")[2].split()[ARGUMENTS_AT])
            listed = (proc / "cmdline").read_bytes()
            with (proc / "mem").open("r+b", buffering=0) as memory:
                for match in re.finditer(self.key.encode(), listed):
                    memory.seek(start + match.start())
                    memory.write(b"*" * len(self.key))

    def stubs(self) -> dict[int, str]:
        """The processes of the Python backend that run: id to model. One that has ended or is stopped is
        not among them.
        """
        owners = {}
        for folder, state in self._children():
            with contextlib.suppress(OSError):
                if state not in STOPPED and (
                    model := MODEL_OF_STUB.search((folder / "cmdline").read_bytes())
                ):
                    owners[int(folder.name)] = model[1].decode()
        return owners

    def bereft(self) -> bool:
        """Whether a process of some model has ended without Triton having taken notice."""
        return any(state == ZOMBIE for _folder, state in self._children())

    def _children(self) -> Iterator[tuple[Path, str]]:
        """Its folder in /proc and the state of each."""
        for folder, state, parent in _processes():
            if parent == self.process.pid:
                yield folder, state

    def stop(self) -> None:
        """Lets running requests end."""
        children.stop(self.process)

    def kill(self) -> None:
        """Ends the server and the processes of its models at once, also those that are stopped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _processes() -> Iterator[tuple[Path, str, int]]:
    """Every process of the machine: its folder in /proc, its state, its parent's id."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                yield folder, state, int(parent)


def backends(venv: Path, folder: Path) -> Path:
    """Writes `folder`/python, the Python backend with the stub of this Python's version, as the wheel keeps
    them apart.
    """
    wheel = _wheel(venv) / "pytriton/tritonserver"
    out = folder / "python"
    end_orphans((out / STUB).resolve())  # as the server starts it
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(wheel / "backends/python", out)
    stub = out / STUB
    shutil.copyfile(wheel / "python_backend_stubs" / PYTHON / STUB, stub)
    stub.chmod(0o755)
    return folder


def end_orphans(stub: Path) -> None:
    """Kills the processes of `stub` whose server is gone: one that was killed before it had said a word to
    them is waited for for ever.
    """
    for folder, _state, parent in _processes():
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if command[0] == os.fsencode(stub) and parent != int(command[SERVER]):
                os.kill(int(folder.name), signal.SIGKILL)


def start(
    venv: Path | None,
    repository: Path,
    state: Path,
    ports: Ports,
    *,
    host: str = LOOPBACK,
    key: str | None = None,
    extra: tuple[str, ...] = (),
) -> Server:
    """Starts Triton on `repository` without any model loaded; `state` gets its log and its backend folder.

    venv: with the wheel's server; None: NVIDIA's container. key: what its control APIs want to see; None: a
    new one, in the Server alone. It dies with the process that started it, however that one ends.
    """
    key = key or secrets.token_hex(32)
    state.mkdir(parents=True, exist_ok=True)
    repository.mkdir(parents=True, exist_ok=True)
    log = state / "triton.log"
    http, grpc, loopback = _addresses(host)
    binary, folder, environment = _of_nvidia() if venv is None else _of_wheel(venv, state)
    command = [
        str(binary),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={folder.resolve()}",
        "--model-control-mode=explicit",
        f"--http-restricted-api={CONTROL_APIS}:{control.HEADER}={key}",
        f"--grpc-restricted-protocol={CONTROL_APIS}:{control.HEADER}={key}",
        "--strict-readiness=true",
        "--exit-timeout-secs=5",
        f"--http-address={http}",
        f"--http-port={ports.http}",
        f"--grpc-address={grpc}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={http}",
        f"--metrics-port={ports.metrics}",
        f"--allow-gpu-metrics={str(venv is None).lower()}",
        *extra,
    ]
    # ONNX Runtime alone uses threads here, as many as an instance is given.
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # It keeps nothing, and asked to end while a model is loaded it may stay for ever.
    process = children.start(command, log=log, environment=environment, orphaned=signal.SIGKILL)
    return Server(process=process, ports=ports, log=log, key=key, loopback=loopback)


def _addresses(host: str) -> tuple[str, str, str]:
    """What its HTTP and its gRPC listen on, as either wants to read it, and the loopback of the former.

    gRPC takes `::` for every address. HTTP takes it for IPv6 alone, and of any other form listens nowhere and
    says nothing: there it means the family of the pod's own address, by which probes and Prometheus come.
    """
    host = listening.usable(host)
    if host == listening.EVERY and ":" not in os.environ.get(ADDRESS, ""):
        return "0.0.0.0", f"[{host}]", LOOPBACK  # noqa: S104  what it says
    return (f"ipv6:{host}", f"[{host}]", "[::1]") if ":" in host else (host, host, LOOPBACK)


def _of_nvidia() -> tuple[Path, Path, dict[str, str]]:
    return NVIDIA / "bin/tritonserver", NVIDIA / "backends", dict(os.environ)


def _of_wheel(venv: Path, state: Path) -> tuple[Path, Path, dict[str, str]]:
    libraries = [str(_wheel(venv) / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}} | {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        # The stub is an embedded Python: it finds its packages by the `python3` that comes first on the path.
        "PATH": os.pathsep.join([str(venv.resolve() / "bin"), os.environ.get("PATH", "")]),
        "VIRTUAL_ENV": str(venv.resolve()),
        "PYTHONPATH": str(_wheel(venv)),
    }
    return (
        _wheel(venv) / "pytriton/tritonserver/bin/tritonserver",
        backends(venv, state / "backends"),
        environment,
    )


def _wheel(venv: Path) -> Path:
    return venv.resolve() / "lib" / f"python{PYTHON}" / "site-packages"
