"""The registry's champion on disk, for the stages that compare with it; an empty folder where there is none."""

import shutil
from pathlib import Path

from crops.io import artifacts
from crops.stages.base import StageReport


def run(out: Path, *, registry: str | None = None) -> StageReport:
    """Copies the champion release of `registry` to `out`."""
    found = _champion(registry) if registry else None
    with artifacts.replacing(out) as folder:
        if found is not None:
            shutil.copytree(found, folder, dirs_exist_ok=True)
    notes = () if found is not None else ("no champion in the registry: clicks is registered first and becomes it",)
    return StageReport(numbers={"champion_found": int(found is not None)}, notes=notes)


def _champion(registry: str) -> Path | None:
    from crops.io import registry as registries  # here: it loads MLflow

    found: Path | None = registries.champion(registry)
    return found
