"""Every component is a thin plug: short, imports inside, nothing installed; found by glob so that none is forgotten."""

import ast
from pathlib import Path
from types import SimpleNamespace

import components

FILES = sorted(p for p in Path(components.__file__).parent.glob("*.py") if p.stem not in {"__init__", "images"})


def test_each_component_is_short_and_imports_only_stages_and_configs_inside():
    assert len(FILES) == 17, "one per stage, and the champion, the baseline and the exit handler"
    for path in FILES:
        tree = ast.parse(path.read_text())
        function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
        statements = function.body[1:]
        assert len(statements) <= 12, path.name
        assert not [n for n in ast.walk(function) if isinstance(n, ast.If | ast.For | ast.While)], path.name
        for node in statements:
            if isinstance(node, ast.ImportFrom):
                assert node.module.startswith(("crops.stages", "crops.config", "pathlib")), f"{path.name}: {node.module}"
        assert "install_kfp_package=False" in path.read_text()
        assert "from __future__" not in path.read_text()


def test_finish_writes_the_final_state(tmp_path):
    from components.finish import finish

    status = SimpleNamespace(state="FAILED", error_message="a reason")
    finish.python_func(status=status, out=SimpleNamespace(path=str(tmp_path / "out")))
    assert '"FAILED"' in (tmp_path / "out/status.json").read_text()


def test_champion_without_a_registry_is_an_empty_folder(tmp_path):
    from components.champion import champion
    from crops.stages import plug

    logged = {}
    metrics = SimpleNamespace(log_metric=logged.__setitem__, path=str(tmp_path / "metrics"))
    out = tmp_path / "out"
    champion.python_func(registry="", fingerprint="x", out=SimpleNamespace(path=str(out)), metrics=metrics)
    assert logged == {"champion_found": 0.0}
    assert plug.optional(out) is None, "stage.json alone is no champion"
