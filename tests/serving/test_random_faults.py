"""Parts die, stop, hang and run out of room, drawn at random, while people search and click: what they were
told stands in the tables, once, in its arm. CROPS_FAULT_SEED draws the faults of an earlier run again.
"""

import os
import subprocess
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from tests.serving import faults
from tests.serving.ledger import Ledger

pytestmark = [pytest.mark.triton, pytest.mark.redis]
TODAY = f"{datetime.now(UTC):%Y%m%d}"


@pytest.fixture
def stack(tmp_path):
    """A served experiment, with all that can go wrong."""
    made = faults.Stack(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("drawn", "seconds"),
    [
        pytest.param(faults.BRIEF, 6.0, id="brief"),
        pytest.param(faults.LONG, 200.0, id="long", marks=pytest.mark.slow),
    ],
)
def test_whatever_fails_nothing_acknowledged_is_lost_twice_or_in_another_arm(stack, drawn, seconds):
    seed = int(os.environ.get("CROPS_FAULT_SEED", TODAY))
    ledger, end = (
        Ledger(lambda user: stack.assigner.assign(user).counted_arm, stack.releases),
        threading.Event(),
    )
    trail = [f"CROPS_FAULT_SEED={seed}"]
    try:
        if drawn is faults.LONG:
            stack.kill_while_starting()
        stack.wait_well()
        people = ledger.people(stack.address, 4, seed, end)
        try:
            faults.happen(stack, drawn, seed, seconds, trail)
            stack.wait_well()
            stack.wait_no_orphan()
            ledger.wait_told(stack.releases, 10)
        finally:
            end.set()
            for person in people:
                person.join()
        stack.end(faults.ORDERLY)
        done = subprocess.run(faults.compact_command(stack), cwd=faults.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        wrong = ledger.faults(stack.folder / "tables")
        assert not wrong, wrong[:20]
    except BaseException as error:
        error.add_note("\n".join(trail))
        raise
    print("\n".join(trail))
    took_s = np.quantile(ledger.took_s, (0.5, 0.99, 1.0)).round(3)
    print(f"{len(ledger.searches)} searches, {len(ledger.events)} videos acted on; {dict(ledger.answers)}")
    print(f"answered after s, p50 p99 max: {took_s}; the event log's disk: {stack.disk or 'not its own'}")
