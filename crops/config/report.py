"""Settings of the report."""

from pydantic import Field

from crops.config.base import StageConfig


class ReportConfig(StageConfig):
    """What the page shows."""

    title: str = "CroPS training report"
    """Heading of the page. Source: ours."""
    examples: int = Field(3, ge=0)
    """Examples shown per perspective, pairs. Source: ours, because a phone shows three."""
    queries: int = Field(2000, ge=0)
    """Queries won and lost that the page holds per test set, the largest differences first. Source: ours,
    because 2000 rows are some 100 kB.
    """
    beside: int = Field(100, ge=0)
    """Queries per test set for which the page holds what the systems answer, side by side: those most won and
    most lost. Source: ours, because 100 of each are some 300 kB.
    """
    results: int = Field(5, ge=1)
    """Results of each system that stand there, documents. Source: ours, because a phone shows five."""
    publish: str | None = None
    """fsspec URL that gets report.json and report.html too, for who cannot see the run's artifacts; null:
    nowhere. Source: ours.
    """
