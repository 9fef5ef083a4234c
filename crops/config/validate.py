"""Settings of `crops validate`."""

from pydantic import Field

from crops.config.base import StageConfig


class ValidateConfig(StageConfig):
    """What a log must be like before anything is learnt from it."""

    max_query_chars: int = Field(1_024, ge=1, description="Longest query, characters; longer ones are quarantined. Source: ours.")
    max_play_s: float = Field(86_400.0, gt=0, description="Longest play, seconds. Source: ours: a day.")
    max_bad_share: float = Field(
        0.05, ge=0, le=1, description="Share of bad rows of one kind from which on it is critical. Source: ours."
    )
    min_volume_ratio: float = Field(0.2, ge=0, description="Least rows of a day against the day before. Source: ours; a warning.")
    max_volume_ratio: float = Field(5.0, gt=0, description="Most rows of a day against the day before. Source: ours; a warning.")
    min_click_rate: float = Field(
        0.001, ge=0, le=1, description="Least clicks per exposed result on a day. Source: ours; a warning."
    )
    max_click_rate: float = Field(
        0.8, ge=0, le=1, description="Most clicks per exposed result on a day. Source: ours; a warning."
    )
    memory_gb: float = Field(2.0, gt=0, description="Memory of the engine, GB; above it, it spills to disk. Source: ours.")
