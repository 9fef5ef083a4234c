"""Runs `tritonserver` as a child process, the nvidia-pytriton wheel's or that of NVIDIA's container: explicit
model control.
"""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from crops.errors import ServiceError
from crops.release.triton import control
from serving import children

PYTHON = sysconfig.get_python_version()
START_S = 60.0
LOOPBACK = "127.0.0.1"
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

    @property
    def http(self) -> str:
        """Base URL of the KServe v2 API."""
        return f"http://127.0.0.1:{self.ports.http}"

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
                return
            time.sleep(0.05)
        raise ServiceError(f"tritonserver does not answer after {timeout_s:.0f} s; its log is {self.log}")

    def stop(self) -> None:
        """Lets running requests end."""
        children.stop(self.process)


def backends(venv: Path, folder: Path) -> Path:
    """Writes `folder`/python, the Python backend with the stub of this Python's version, as the wheel keeps
    them apart.
    """
    wheel = _wheel(venv) / "pytriton/tritonserver"
    out = folder / "python"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(wheel / "backends/python", out)
    stub = out / "triton_python_backend_stub"
    shutil.copyfile(wheel / "python_backend_stubs" / PYTHON / stub.name, stub)
    stub.chmod(0o755)
    return folder


def start(
    venv: Path | None,
    repository: Path,
    state: Path,
    ports: Ports,
    *,
    host: str = LOOPBACK,
    extra: tuple[str, ...] = (),
) -> Server:
    """Starts Triton on `repository` without any model loaded; `state` gets its log and its backend folder.

    venv: with the wheel's server; None: NVIDIA's container. It dies with the process that started it, however
    that one ends.
    """
    state.mkdir(parents=True, exist_ok=True)
    repository.mkdir(parents=True, exist_ok=True)
    log = state / "triton.log"
    binary, folder, environment = _of_nvidia() if venv is None else _of_wheel(venv, state)
    command = [
        str(binary),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={folder.resolve()}",
        "--model-control-mode=explicit",
        "--strict-readiness=true",
        "--exit-timeout-secs=5",
        f"--http-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-address={host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={host}",
        f"--metrics-port={ports.metrics}",
        f"--allow-gpu-metrics={str(venv is None).lower()}",
        *extra,
    ]
    # ONNX Runtime alone uses threads here, as many as an instance is given.
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return Server(process=children.start(command, log=log, environment=environment), ports=ports, log=log)


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
