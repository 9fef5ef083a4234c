"""The final status of a pipeline run, written whether it ended well or not."""

from pathlib import Path

from crops.stages.base import StageReport
from crops.tables import artifacts


def run(out: Path, *, state: str, error: str | None = None) -> StageReport:
    """Writes status.json {"state", "error"} into `out`."""
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "status.json", {"state": state, "error": error or None})
    return StageReport()
