"""The registry's champion on disk, for the stages that compare with it; an empty folder if there is none."""

from pathlib import Path

from crops.arms import CHAMPION
from crops.config.register import RegisterConfig
from crops.services.registry import Registry
from crops.stages.base import StageReport
from crops.tables import artifacts


def run(out: Path, cfg: RegisterConfig, *, registry: str | None = None) -> StageReport:
    """Copies the champion release of `registry` to `out`."""
    models = Registry(registry, cfg.name) if registry else None
    version = models.holder(CHAMPION) if models else None
    with artifacts.replacing(out) as folder:
        if models and version is not None:
            models.download(version, folder)
    notes = (
        ()
        if version
        else (
            "no champion in the registry: the better of base and clicks is registered first and becomes it",
        )
    )
    return StageReport(numbers={"champion_found": int(version is not None)}, notes=notes)
