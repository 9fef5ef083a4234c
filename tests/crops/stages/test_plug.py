"""What components share."""

import json

from crops.stages import plug
from crops.stages.base import StageReport
from crops.tables import artifacts


def test_beside_the_tables_lie_grades_and_the_mark_of_a_world(tmp_path):
    """The tables stay behind; a task that runs again finds the same."""
    for name in (
        "searches/date=2026-01-01/a.parquet",
        "truth/relevance/a.parquet",
        "judgements/grades.parquet",
    ):
        (tmp_path / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "logs" / name).write_text(name)
    (tmp_path / "logs/world.json").write_text("{}")
    for _ in range(2):
        plug.beside(tmp_path / "logs", tmp_path / "out")
    copied = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert copied == {"truth/relevance/a.parquet", "judgements/grades.parquet", "world.json"}
    assert plug.graded(tmp_path / "out") == tmp_path / "out/truth"


def test_a_log_of_tables_alone_gives_an_empty_folder(tmp_path):
    """The local cache takes an output whose folder is missing for a miss."""
    (tmp_path / "logs").mkdir()
    plug.beside(tmp_path / "logs", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


class Metrics:
    """KFP's artifact of numbers, as far as it is used."""

    def __init__(self, path):
        self.path, self.logged = str(path), {}

    def log_metric(self, name, value):
        self.logged[name] = value


def test_a_stage_leaves_its_seconds_its_peak_memory_and_its_numbers(tmp_path, capsys):
    """200 MB that it held for a moment are in the peak, which is this whole process's."""

    def stage(out):
        artifacts.write_json(out / "made.json", {})
        bytearray(200_000_000)
        return StageReport(numbers={"rows": 3}, notes=("a note",))

    (tmp_path / "out").mkdir()
    metrics = Metrics(tmp_path / "metrics")
    settings = json.dumps({"seed": 1})
    plug.timed("train crops", str(tmp_path / "out"), metrics, stage, settings)
    kept = artifacts.read_json(tmp_path / "out" / plug.STAGE_FILE)
    assert 0.2 < kept.pop("memory_gb") < 100
    assert kept.pop("seconds") > 0
    assert kept.pop("versions")["python"]
    assert kept == {
        "stage": "train crops",
        "numbers": {"rows": 3},
        "notes": ["a note"],
        "config": {"seed": 1},
    }
    assert metrics.logged == {"rows": 3.0}
    begun, ended = (json.loads(line.removeprefix(plug.MARK)) for line in capsys.readouterr().out.splitlines())
    assert begun == {"stage": "train crops", "begins": True}
    assert ended["memory_gb"] > 0.2
