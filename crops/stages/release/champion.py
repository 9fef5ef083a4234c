"""The registry's champion on disk, for the stages that compare with it; an empty folder where there is
none.
"""

from pathlib import Path

from crops.stages.base import StageReport
from crops.tables import artifacts


def run(out: Path, *, registry: str | None = None) -> StageReport:
    """Copies the champion release of `registry` to `out`."""
    with artifacts.replacing(out) as folder:
        found = _champion(registry, folder) if registry else False
    notes = () if found else ("no champion in the registry: clicks is registered first and becomes it",)
    return StageReport(numbers={"champion_found": int(found)}, notes=notes)


def _champion(registry: str, folder: Path) -> bool:
    from crops.services import registry as registries  # here: it loads MLflow

    return registries.champion(registry, folder)
