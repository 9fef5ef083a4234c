"""Settings of `crops ablate`."""

from typing import Literal

from pydantic import Field

from crops.config.base import StageConfig


class AblateConfig(StageConfig):
    """How often each row is trained, and in which form."""

    seeds: int = Field(3, ge=1)
    """Trainings per row, each with another chance of start and batches. Source: ours."""
    form: Literal["paper", "log"] = "paper"
    """Anchors of the graded rows. paper: label >= 1; log: what the log's ladder and validation choose.
    Source: paper / ours.
    """
