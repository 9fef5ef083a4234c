"""User to arm, by the GrowthBook SDK in this process: no server, no state to share between replicas.

Sticky by construction: an arm is a range of a hash of salt and user. Every replica gives the same answer, and
crops.experiment.features lets a running experiment only widen.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from growthbook import GrowthBook

from crops.experiment import features
from crops.release import document

# Users remembered to log an exposure once: a million take about 200 MB.
EXPOSURES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one user gets. Outside experiments everything but `first` is None or False, and the champion is
    served.
    """

    experiment: str | None = None
    arm: str | None = None  # control or treatment: decides the release
    release: str | None = None
    tester: bool = False  # sees `arm` by override
    first: bool = False  # this user's first time in this experiment here: log the exposure

    @property
    def counted_arm(self) -> str | None:
        """What goes into logs and metrics: testers see an arm but are nobody's data."""
        return None if self.tester else self.arm


NOBODY = Assignment()


class Exposures:
    """Who was seen before, in bounded memory: past `capacity` the longest unseen is forgotten and would be
    logged again.
    """

    def __init__(self, capacity: int = EXPOSURES) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = Lock()

    def first(self, experiment: str, user_id: str) -> bool:
        """True once per user and experiment (as long as it is remembered)."""
        key = (experiment, user_id)
        with self._lock:
            remembered = key in self._seen
            self._seen[key] = None
            self._seen.move_to_end(key)
            if len(self._seen) > self._capacity:
                self._seen.popitem(last=False)
        return not remembered


class Assigner:
    """Assigns users by one features payload; make another for another payload and hand on its `exposures`.

    Safe to use from many threads: the SDK's object, which holds one user, is made per call (about 50
    microseconds).
    """

    def __init__(
        self,
        payload: features.Json,
        *,
        exposures: Exposures | None = None,
        clock: Callable[[], float] = time.time,
        releases: set[str] | None = None,
        source: str = "features",
    ) -> None:
        """`clock` gives Unix seconds; `releases` is what can be served (None: not checked). Raises
        ConfigError.
        """
        self.experiments = features.parse(payload, releases=releases, source=source)
        self.exposures = exposures or Exposures()
        self._features = payload["features"]
        self._clock = clock

    def assign(self, user_id: str) -> Assignment:
        """The same answer for the same user, on every replica and after every restart."""
        if not self.experiments:
            return NOBODY
        sdk = GrowthBook(attributes={"id": user_id, "now_s": self._clock()}, features=self._features)
        value = sdk.eval_feature(features.FEATURE).value
        if value is None:
            return NOBODY
        tester = bool(value.get("tester"))
        first = not tester and self.exposures.first(value["experiment"], user_id)
        return Assignment(
            experiment=value["experiment"],
            arm=value["arm"],
            release=value["release"],
            tester=tester,
            first=first,
        )


def load(
    location: str | Path,
    *,
    exposures: Exposures | None = None,
    clock: Callable[[], float] = time.time,
    releases: set[str] | None = None,
    before: Assigner | None = None,
    held: document.Held | None = None,
) -> Assigner:
    """The assigner of a features file; where there is no file nobody is in an experiment. Raises
    ConfigError, also where it changes an experiment that runs in `before` in a way that the controller would
    refuse. held: the file as it was read already.
    """
    source, held = str(location), held or document.read(str(location))
    read = Assigner(
        features.payload(held.content, source=source),
        exposures=exposures,
        clock=clock,
        releases=releases,
        source=source,
    )
    features.check_changes(before.experiments if before else [], read.experiments)
    return read
