"""Settings of `crops label`."""

from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from crops import perspectives
from crops.config.base import StageConfig

# The loss tells so many labels apart, beside 0.
LEVELS = 5


class LabelConfig(StageConfig):
    """Which label a perspective gets and how the hierarchy is chosen."""

    labels: dict[str, int] = Field(default_factory=perspectives.labels)
    """Label of each perspective; only the order matters; 0 is kept for in-batch documents. Source: paper."""
    hierarchy: Literal["ladder", "paper"] = "ladder"
    """ladder: anchors chosen from the measured relevance per label; paper: anchors >= 1. Source: ours /
    paper.
    """
    min_anchor_share: float = Field(0.5, gt=0, lt=1)
    """A label is an anchor when at least this share of the relevance of the lowest positive label is left in
    it. Source: ours: in a prototype anchors >= 3 cost 3 points of truth where a fifth was left, and 1 where
    two thirds were.
    """
    uncertain_share: float = Field(0.35, ge=0, lt=1)
    """Below min_anchor_share by less than this: both hierarchies go to validation, for each system. Source:
    ours: anchors >= 3 cost 9 points of truth without knowledge and 1 with it, where label 3 keeps a fifth.
    """
    anchor_min: int = Field(
        default_factory=lambda data: data.get("labels", perspectives.labels())[perspectives.EXPOSED.name],
        ge=1,
        validation_alias=AliasChoices("anchor_min", "lowest_anchor"),  # its name in older configs
    )
    """Lowest label that becomes an anchor by θ alone; people's grades may go lower; default: that of exposed.
    Source: ours: anchors >= 1 cost 3 to 6 points of truth on two simulated worlds, also where θ took label 1
    for as relevant as a positive one.
    """
    judged_pairs: int = Field(50, ge=1)
    """Judged pairs of a label from which on the ladder believes people, not θ, pairs. Source: ours: ±14
    points.
    """

    @field_validator("labels")
    @classmethod
    def _complete(cls, labels: dict[str, int]) -> dict[str, int]:
        defaults = perspectives.labels()
        if labels.keys() - defaults:
            raise ValueError(f"expected a label for each of {', '.join(defaults)}")
        whole = defaults | labels
        if wrong := {name: label for name, label in whole.items() if not 1 <= label <= 127}:
            raise ValueError(f"labels are 1..127 (0 is kept for in-batch documents), found {wrong}")
        if len(set(whole.values())) > LEVELS:
            raise ValueError(f"expected at most {LEVELS} different labels, found {whole}")
        if high := [s for s in perspectives.STAGES if whole[s] >= perspectives.positive_min(whole)]:
            raise ValueError(f"expected {high[0]} below the labels of all positives, found {whole}")
        return whole

    @model_validator(mode="after")
    def _anchor(self) -> Self:
        if self.anchor_min > (highest := perspectives.positive_min(self.labels)):
            raise ValueError(f"anchor_min is {self.anchor_min}, expected at most {highest}")
        return self
