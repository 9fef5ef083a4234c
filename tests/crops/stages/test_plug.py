"""What components share."""

from crops.stages import plug


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
