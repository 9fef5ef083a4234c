"""`python -m serving.gateway SETTINGS.json`: one gateway process, until SIGTERM or Ctrl-C."""

import sys
from pathlib import Path

from crops import cores

if __name__ == "__main__":
    # Its index threads are the parallelism; a team of OpenMP behind each of them would be the square of it.
    cores.hold(1)
    from serving.gateway import server  # brings NumPy and FAISS, which read that when they are loaded

    server.main(Path(sys.argv[1]))
