"""Settings of `crops experiment`: which searches belong to the experiment and how it is read."""

from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from crops.config.base import Engine, StageConfig, engine, spark_master
from crops.config.reformulation import window_s

# Of a level: above it always-valid intervals have no answer (crops.experiment.sequential), and nobody who
# says 0.95 means an interval of 5 %.
LARGEST_ALPHA = 0.5


class ExperimentConfig(StageConfig):
    """How an experiment is read: period, primary metric, levels, and the effect it is planned for."""

    since: datetime | None = None
    """Start of the experiment (RFC 3339). Null: the first search with an arm. Earlier ones: the pre-period.
    """
    until: datetime | None = None
    """End of the experiment, exclusive (RFC 3339). Null: the end of the log."""
    primary: Literal["ctr", "lpr", "rqr"] = "ctr"
    """Metric that decides; the others are guardrails. Source: ours."""
    share: float = Field(0.5, gt=0, lt=1)
    """Planned share of treatment among the users of both arms. Source: ours."""
    alpha: float = Field(0.05, gt=0, le=LARGEST_ALPHA)
    """1 - level of the intervals; false-discovery rate. Source: convention."""
    power: float = Field(0.8, gt=0, lt=1)
    """Probability of seeing the planned effect. Source: convention."""
    planned_users: int = Field(5000, ge=1)
    """Users of both arms where the always-valid interval is narrowest; fix it before the start. Source: ours.
    """
    planned_lift: float = Field(0.01, gt=0)
    """Relative effect that the planner asks for. Source: ours; the paper saw +0.87 % of CTR."""
    window_s: int = window_s()
    threads: int | None = Field(None, ge=1)
    """Threads of DuckDB or local Spark; null: one per usable core. Source: ours."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory of DuckDB or local Spark; null: their default. Source: ours."""
    engine: Engine = engine()
    spark_master: str = spark_master()

    @field_validator("since", "until")
    @classmethod
    def _zoned(cls, moment: datetime | None) -> datetime | None:
        if moment is not None and moment.tzinfo is None:
            raise ValueError("no time zone; write it as 2026-01-01T00:00:00Z")
        return moment.astimezone(UTC) if moment else None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.until <= self.since:
            raise ValueError(f"until is {self.until}, expected later than since = {self.since}")
        return self
