"""Circuit breaker: after some failures in a row nobody waits for a service that is down; one trial at a time
finds it back.
"""

from collections.abc import Callable


class Breaker:
    """Closed until `failures` in a row; then open, with one trial every `pause_s`; a trial that succeeds
    closes it.
    """

    def __init__(self, *, failures: int, pause_s: float, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that only grow."""
        self._limit, self._pause_s, self._clock = failures, pause_s, clock
        self._failed = 0
        self._next_trial_s = 0.0

    @property
    def open(self) -> bool:
        """Whether calls are refused (but for trials)."""
        return self._failed >= self._limit

    def allows(self) -> bool:
        """Whether a call may be made now; while open, True is the trial and starts the next pause."""
        if not self.open:
            return True
        if self._clock() < self._next_trial_s:
            return False
        self._next_trial_s = self._clock() + self._pause_s
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self._failed = 0

    def failed(self) -> None:
        """A call was not answered."""
        self._failed += 1
        if self._failed == self._limit:
            self._next_trial_s = self._clock() + self._pause_s
