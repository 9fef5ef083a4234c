"""What `crops serve` starts, both arms of an experiment, as a process of its own: `python -m
tests.serving.served FILE` with a JSON object of `laptop.serve`'s arguments. No test in here.
"""

import json
import sys
from pathlib import Path

from crops.arms import ARMS
from serving import laptop
from tests.serving import releases as toys


def main(path: Path) -> None:
    """Until SIGTERM. Nothing is given up: faults are many more than five a minute."""
    told = json.loads(path.read_text())
    laptop.serve(
        dict(
            zip(
                ARMS,
                (toys.named(Path(folder), n + 1) for n, folder in enumerate(told["releases"])),
                strict=True,
            )
        ),
        Path(told["state"]),
        host="127.0.0.1",
        port=told["port"],
        events=Path(told["events"]),
        settings=told["settings"],
        say=lambda line: print(line, flush=True),
        instances=toys.INSTANCES,
        restarts_a_minute=10_000,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
