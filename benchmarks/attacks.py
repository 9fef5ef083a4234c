"""What peers that cost more than they should do to other people's latency.

    python benchmarks/attacks.py [--seconds 10] [--write]     needs `make triton`

A whole stack, every query encoded, is searched 20 times a second on new connections, in turn calm and under
one of the attacks of tests/serving/attacks.py. The attacker is a process of its own on the same cores, at the
lowest priority: on two cores what it takes of them is in the figures, too.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np
import report

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks import search_latency
from crops.release.triton import repository
from serving.triton import install
from tests.serving import attacks

RATE = 20.0


def ms(address: str, seconds: float, seed: int) -> tuple[float, float, int]:
    """p50 and p99 of the searches, in ms, and how many got no result."""
    took, answers = asyncio.run(attacks.searching(address, seconds, RATE, seed))
    p50, p99 = np.quantile(took, [0.5, 0.99]) * 1000
    return float(p50), float(p99), answers.total() - answers[200]


def main() -> None:
    """A line for each attack: calm, attacked, their ratio."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each half")
    given = parser.parse_args()
    if not install.ready():
        print("not run: no Triton server; make triton")
        return
    rows = []
    with (
        tempfile.TemporaryDirectory() as place,
        search_latency.stack(search_latency.made(Path(place)), repository.Instances()) as address,
    ):
        ms(address, given.seconds, 0)  # warm
        for number, name in enumerate(attacks.ATTACKS):
            calm = ms(address, given.seconds, 2 * number + 1)
            with attacks.attacker(address, name):
                hit = ms(address, given.seconds, 2 * number + 2)
            numbers = (*calm[:2], *hit[:2], hit[1] / calm[1])
            rows.append([name, *(f"{x:.1f}" for x in numbers), f"{calm[2]}, {hit[2]}"])
    header = [
        "attack",
        "calm p50 ms",
        "p99",
        "attacked p50 ms",
        "p99",
        "p99 times",
        "no result, calm and hit",
    ]
    text = f"# Other people under attack\n\n{RATE:.0f} searches a second.\n\n{report.table(header, rows)}\n\n"
    report.out("attacks", text + report.machine(["uvicorn", "tritonclient"]), write=given.write)


if __name__ == "__main__":
    main()
