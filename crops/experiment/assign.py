"""User to arm, by the GrowthBook SDK in this process: no server, no state to share between replicas.

Sticky by construction: an arm is a range of a hash of salt and user. Every replica gives the same answer, and
crops.experiment.features lets a running experiment only widen.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from growthbook import GrowthBook

from crops.experiment import features
from crops.release import document


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What one user gets. Outside experiments everything is None or False, and the champion is served."""

    experiment: str | None = None
    arm: str | None = None  # control or treatment: decides the release
    release: str | None = None
    tester: bool = False  # sees `arm` by override

    @property
    def counted_arm(self) -> str | None:
        """What goes into logs and metrics: testers see an arm but are nobody's data."""
        return None if self.tester else self.arm


NOBODY = Assignment()


class Assigner:
    """Assigns users by one features payload; make another for another payload.

    Safe to use from many threads: the SDK's object, which holds one user, is made per call (about 50
    microseconds).
    """

    def __init__(
        self,
        payload: features.Json,
        *,
        clock: Callable[[], float] = time.time,
        releases: set[str] | None = None,
        source: str = "features",
    ) -> None:
        """`clock` gives Unix seconds; `releases` is what can be served (None: not checked). Raises
        ConfigError.
        """
        self.experiments = features.parse(payload, releases=releases, source=source)
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
        return Assignment(
            experiment=value["experiment"],
            arm=value["arm"],
            release=value["release"],
            tester=bool(value.get("tester")),
        )


def load(
    location: str | Path,
    *,
    clock: Callable[[], float] = time.time,
    releases: set[str] | None = None,
    before: Assigner | None = None,
    file: document.Held | None = None,
) -> Assigner:
    """The assigner of a features file; where there is no file nobody is in an experiment. Raises
    ConfigError, also where it changes an experiment that runs in `before` in a way that the controller would
    refuse. file: it, where it was read already.
    """
    source, file = str(location), file or document.read(str(location))
    read = Assigner(
        features.payload(file.content, source=source), clock=clock, releases=releases, source=source
    )
    features.check_changes(before.experiments if before else [], read.experiments)
    return read
