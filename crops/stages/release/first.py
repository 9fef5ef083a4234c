"""The better of the untouched base and `clicks`, by evaluation: it becomes champion where there is none."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from crops.stages.base import StageReport
from crops.stages.release import gate
from crops.tables import artifacts


def run(encoders: Mapping[str, Path], metrics: Path, out: Path) -> StageReport:
    """Copies the encoder that `gate.first` names. `encoders`: what training wrote, by system; `metrics`:
    evaluate's out.
    """
    chosen = gate.first(metrics)
    with artifacts.replacing(out) as folder:
        shutil.copytree(encoders[chosen], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    return StageReport(notes=(f"{chosen} becomes champion if the registry has none",))
