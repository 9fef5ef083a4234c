"""What a run trained beside its challenger and nobody is served, made ready to be searched beside it: a
release of each, which no registry knows.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from crops import perspectives
from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.retriever.systems import FIRST, SYSTEMS, sees
from crops.stages.release import export, index, register
from crops.tables import artifacts, records

SOURCE = "source.json"


def run(trained: Mapping[str, Path], documents: Path, samples: Path, out: Path) -> dict[str, Path]:
    """A release's folder below `out` for each of FIRST that was trained; those that are there already, of the
    same training, stay.

    trained    system -> what `crops train` wrote
    documents  what `crops augment` wrote
    samples    what `crops label` wrote
    """
    made = {}
    for name in (name for name in FIRST if name in trained):
        made[name] = out / name / "release"
        source = {"trained": str(trained[name].resolve()), "documents": str(documents.resolve())}
        place = out / name / SOURCE
        if place.is_file() and artifacts.read_json(place) == source:
            continue
        place.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            export.run(trained[name], root / "onnx", ExportConfig())
            index.run(root / "onnx", documents, root / "index", IndexConfig())
            _seen(name, samples, root / "samples")
            parts = (root / "onnx", root / "index", documents, root / "samples")
            with artifacts.replacing(made[name]) as folder:
                register.assemble(folder, parts, RegisterConfig(name=name))
        artifacts.write_json(place, source)
    return made


def _seen(name: str, samples: Path, out: Path) -> None:
    """The pairs that the system has learnt from: the untouched encoder from none."""
    system = SYSTEMS[name]
    positive = perspectives.names(positive=True)
    wanted = [one for one in positive if system.trained and sees(system, one)]
    artifacts.write(out, records.ORIGINS, artifacts.read(samples, records.ORIGINS, perspective=wanted))
    shutil.copytree(samples / records.SAMPLES.name, out / records.SAMPLES.name)
