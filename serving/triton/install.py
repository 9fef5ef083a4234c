"""The Triton server's own virtual environment: `python -m serving.triton.install` (make triton), and `crops
serve` on first use.

It is apart from the project's: the wheel that carries `tritonserver` wants numpy < 2.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from crops.errors import ServiceError

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "locks/triton.txt"
VENV = ROOT / ".venv-triton"
READY = ".ready"
# The server's Python backend was built against numpy 1, whose last release knows no later Python.
NEWEST = (3, 12)


def ready(venv: Path = VENV, lock: Path = LOCK) -> bool:
    """Whether `venv` holds what `lock` says; where there is no lock (an installed wheel), whether it holds a
    server.
    """
    mark = venv / READY
    return mark.is_file() and (not lock.is_file() or mark.read_text(encoding="utf-8") == _digest(lock))


def ensure(venv: Path = VENV, lock: Path = LOCK, *, say: Callable[[str], None]) -> Path:
    """Builds `venv` where it is missing or older than `lock`; a ServiceError with the installer's last line
    where it cannot.
    """
    if ready(venv, lock):
        return venv
    if not lock.is_file():
        raise ServiceError(
            f"{venv}: no Triton server here and no {lock} to build it from, as in an installed wheel: "
            "`crops serve` runs from a checkout of the project"
        )
    say(f"building {venv.name} for the Triton server, once (about 300 MB) ...")
    python, environment = venv / "bin/python", dict(os.environ)
    # uv reads UV_FIND_LINKS only; whoever keeps wheels on disk for pip has set PIP_FIND_LINKS.
    environment.setdefault("UV_FIND_LINKS", environment.get("PIP_FIND_LINKS", ""))
    with_uv = importlib.util.find_spec("uv") is not None
    shutil.rmtree(venv, ignore_errors=True)
    _run(_environment(venv, with_uv=with_uv), environment)
    installer = (
        [sys.executable, "-m", "uv", "pip", "install", "--python", str(python)]
        if with_uv
        else [str(python), "-m", "pip", "install"]
    )
    _run([*installer, "--quiet", "--no-deps", "-r", str(lock)], environment)
    (venv / READY).write_text(_digest(lock), encoding="utf-8")
    return venv


def _environment(venv: Path, *, with_uv: bool) -> list[str]:
    """The command that makes an empty one: by this Python, or where it is too new by one that uv finds or
    fetches.
    """
    if sys.version_info[:2] <= NEWEST:
        return [sys.executable, "-m", "venv", *(["--without-pip"] if with_uv else []), str(venv)]
    if not with_uv:
        raise ServiceError(
            f"the Triton server's wheel works with Python up to {'.'.join(map(str, NEWEST))}, this is "
            f"{sys.version.split()[0]}: install uv beside crops, which finds or fetches an older one"
        )
    wanted = f">=3.11,<={'.'.join(map(str, NEWEST))}.99"
    return [sys.executable, "-m", "uv", "venv", "--quiet", "--python", wanted, str(venv)]


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode != 0:
        raise ServiceError(
            f"cannot build the Triton server's environment: {(done.stdout.strip() or 'no output')[-400:]}"
        )


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


if __name__ == "__main__":
    ensure(say=print)
