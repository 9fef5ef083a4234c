"""What becomes the first champion."""

from crops.stages.release import first
from tests.crops.stages.release.test_gate import several


def test_the_better_encoder_is_copied(tmp_path):
    for name in ("base", "clicks"):
        (tmp_path / name / "encoder").mkdir(parents=True)
        (tmp_path / name / "encoder" / "system").write_text(name)
    encoders = {name: tmp_path / name for name in ("base", "clicks")}
    for best, means in (("base", (0.6, 0.5)), ("clicks", (0.5, 0.6))):
        metrics = several(tmp_path / f"{best}-metrics", base=means[0], clicks=means[1])
        report = first.run(encoders, metrics, tmp_path / "out")
        assert (tmp_path / "out" / "encoder" / "system").read_text() == best
        assert report.notes == (f"{best} becomes champion if the registry has none",)
