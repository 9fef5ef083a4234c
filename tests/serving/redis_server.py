"""A real Redis, as a process of its own that may die. No test in here."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.triton import launch


class RedisServer:
    """One that keeps nothing on the disk, always on the same port; the test that asks for it is reported as
    not run where there is none.
    """

    def __init__(self, folder: Path) -> None:
        path = shutil.which("redis-server")
        if path is None:
            pytest.skip("not run: redis-server is not installed (tests/install_system_parts)")
        (self.port,) = launch.free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}"
        settings = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": folder}
        self._command = [
            path,
            *(str(word) for name, value in settings.items() for word in (f"--{name}", value)),
        ]
        self.start()

    def start(self) -> None:
        """Returns when it answers; it is empty."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            time.sleep(0.05)
        raise AssertionError("redis-server does not listen")

    def stop(self) -> None:
        """Ends it, in whatever state it is."""
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Its address, for as long as it is needed."""
    server = RedisServer(folder)
    try:
        yield server.url
    finally:
        server.stop()
