"""Settings of `crops label`."""

from typing import Literal

from pydantic import AliasChoices, Field, field_validator

from crops.config.base import StageConfig

# Table 1 of arXiv 2511.15443.
PAPER_LABELS = {
    "reformulation": 5,
    "feed": 4,
    "knowledge": 4,
    "click": 4,
    "exposed": 3,
    "ranked": 2,
    "filtered": 1,
}


class LabelConfig(StageConfig):
    """Which label a perspective gets and how the hierarchy is chosen."""

    labels: dict[str, int] = Field(
        default_factory=lambda: dict(PAPER_LABELS),
        description="Label of each perspective; only the order matters. Source: paper.",
    )
    hierarchy: Literal["ladder", "paper"] = Field(
        "ladder",
        description="ladder: anchors chosen from the measured relevance per label; paper: anchors >= 1. "
        "Source: ours / paper.",
    )
    min_anchor_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="A label is an anchor when at least this share of the relevance of label 4 is left "
        "in it. Source: ours: in a "
        "prototype anchors >= 3 cost 3 points of truth where a fifth was left, and 1 where two thirds were.",
    )
    uncertain_share: float = Field(
        0.35,
        ge=0,
        lt=1,
        description="Below min_anchor_share by less than this: both hierarchies go to validation, for "
        "each system. Source: ours: "
        "anchors >= 3 cost 9 points of truth without knowledge and 1 with it, where label 3 keeps a fifth.",
    )
    anchor_min: int = Field(
        3,
        ge=1,
        le=4,
        validation_alias=AliasChoices("anchor_min", "lowest_anchor"),  # its name in older configs
        description="Lowest label that becomes an anchor by θ alone; people's grades may go lower. "
        "Source: ours: "
        "anchors >= 1 cost 3 to 6 points of truth on two simulated worlds, also where θ took "
        "label 1 for as relevant as label 4.",
    )
    judged_pairs: int = Field(
        50,
        ge=1,
        description="Judged pairs of a label from which on the ladder believes people, not θ, pairs. "
        "Source: ours: ±14 points.",
    )

    @field_validator("labels")
    @classmethod
    def _complete(cls, labels: dict[str, int]) -> dict[str, int]:
        if labels.keys() != PAPER_LABELS.keys():
            raise ValueError(f"expected a label for each of {', '.join(PAPER_LABELS)}")
        if wrong := {name: label for name, label in labels.items() if not 1 <= label <= 5}:
            raise ValueError(f"labels are 1..5 (0 is kept for in-batch documents), found {wrong}")
        return labels
