"""Settings of `crops judge`."""

from pydantic import Field

from crops.config.base import StageConfig


class JudgeConfig(StageConfig):
    """How many pairs people are asked about."""

    pairs: int = Field(100, ge=1)
    """Pairs of each perspective, pairs. Source: ours: a share is then known to ±10 points."""
    queries: int = Field(50, ge=1)
    """Held-out queries whose pooled results are asked, queries. Source: ours: half have an answer."""
    depth: int = Field(5, ge=1)
    """First results of each system that are asked, documents. Source: ours: what stands on a screen."""
    seed: int = Field(0, ge=0)
    """Chance of the draw and of the order. Source: ours."""
