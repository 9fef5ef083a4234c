"""Settings of `crops validate`."""

from pydantic import Field

from crops.config.base import Engine, StageConfig, engine, spark_master


class ValidateConfig(StageConfig):
    """What a log must be like before anything is learnt from it."""

    max_query_chars: int = Field(1_024, ge=1)
    """Longest query, characters; longer ones are quarantined. Source: ours."""
    max_play_s: float = Field(86_400.0, gt=0)
    """Longest play, seconds. Source: ours: a day."""
    max_clock_skew_s: float = Field(60.0, ge=0)
    """A view this many seconds before its video's upload is still taken for clocks that differ. Source: ours.
    """
    max_bad_share: float = Field(0.05, ge=0, le=1)
    """Share of bad rows of one kind, of the rows that the check concerns, above which it is critical (exit
    code 1). Source: ours.
    """
    min_volume_ratio: float = Field(0.2, ge=0)
    """Least rows of a day against the day before. Source: ours; a warning."""
    max_volume_ratio: float = Field(5.0, gt=0)
    """Most rows of a day against the day before. Source: ours; a warning."""
    min_click_rate: float = Field(0.001, ge=0, le=1)
    """Least clicks per exposed result on a day. Source: ours; a warning."""
    max_click_rate: float = Field(0.8, ge=0, le=1)
    """Most clicks per exposed result on a day. Source: ours; a warning."""
    max_position_gap_share: float = Field(0.01, ge=0, le=1)
    """Share of a day's searches whose exposed positions are not 0, 1, 2 ... each once. Source: ours; a
    warning.
    """
    rows_per_day_looked_at: int | None = Field(50_000, ge=1)
    """Rows of a table and day that Great Expectations looks at itself, about: every row that the engine finds
    bad, and a fixed sample of the others; null = all (about 0.1 million rows a second; not on Spark). Counts,
    shares, accepted and quarantined are always of all rows. Source: ours.
    """
    store: str | None = None
    """Folder or fsspec URL of what was computed of single days of the log (folders date=YYYY-MM-DD), that
    outlives a run and that runs share: a day whose files are the same is not checked again; null: none.
    Source: ours.
    """
    memory_gb: float = Field(2.0, gt=0)
    """Memory of the engine, GB; above it, it spills to disk. Source: ours."""
    engine: Engine = engine()
    spark_master: str = spark_master()
