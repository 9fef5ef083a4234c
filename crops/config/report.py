"""Settings of the report."""

from pydantic import Field

from crops.config.base import StageConfig


class ReportConfig(StageConfig):
    """What the page shows."""

    title: str = "CroPS training report"
    """Heading of the page. Source: ours."""
    examples: int = Field(3, ge=0)
    """Examples shown per perspective, pairs. Source: ours, because a phone shows three."""
    publish: str | None = None
    """fsspec URL that gets report.json and report.html too, for who cannot see the run's artifacts; null:
    nowhere. Source: ours.
    """
