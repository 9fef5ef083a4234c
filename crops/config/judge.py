"""Settings of `crops judge`."""

from pydantic import Field

from crops.config.base import StageConfig


class JudgeConfig(StageConfig):
    """How many pairs people are asked about."""

    pairs: int = Field(100, ge=1)
    """Pairs of each perspective, pairs. Source: ours: a share is then known to ±10 points."""
    seed: int = Field(0, ge=0)
    """Chance of the draw and of the order. Source: ours."""
