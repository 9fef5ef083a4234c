"""The settings of a reformulation, which mining, readout and gateway share."""

from typing import Any

from pydantic import Field

from crops.config.base import StageConfig
from crops.reformulation import WINDOW_S


def window_s() -> Any:
    """The field `window_s`, also of the sections that may override it."""
    return Field(
        WINDOW_S,
        ge=1,
        le=86_400,
        description="A later search of the same user at most so long after the first may reformulate it, "
        "seconds. The section `reformulation` sets it for all; in another section it overrides that. "
        "Source: paper.",
    )


class ReformulationConfig(StageConfig):
    """What counts as a reformulation, in mining, in the readout and in the gateway of `crops serve`."""

    window_s: int = window_s()
