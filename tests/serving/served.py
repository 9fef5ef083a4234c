"""What `crops serve` starts, both arms of an experiment, as a process of its own: `python -m
tests.serving.served FILE` with a JSON object of `laptop.serve`'s arguments. No test in here.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from crops.arms import ARMS
from crops.release.manifest import Release
from serving import laptop
from tests.serving import releases as toys


def command(folder: Path, releases: Sequence[Release], *, port: int, **settings: str) -> list[str]:
    """How it is started, with its state and its event log in `folder`; settings: of the gateway."""
    told = {
        "releases": [r.files for r in releases],
        "state": str(folder / "state"),
        "port": port,
        "events": str(folder / "events"),
        "settings": settings,
    }
    (folder / "serve.json").write_text(json.dumps(told))
    return [sys.executable, "-m", "tests.serving.served", str(folder / "serve.json")]


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
