"""Every component is a thin plug: short, imports inside, nothing installed; found by glob so that none is
forgotten.
"""

import ast
import importlib
import inspect
import json
import typing
from pathlib import Path
from types import SimpleNamespace

import pytest

import components
from crops import stages
from crops.config.kubeflow import COMPONENTS
from crops.stages import show
from crops.stages.base import StageReport

FILES = sorted(
    p for p in Path(components.__file__).parent.glob("*.py") if p.stem not in {"__init__", "images"}
)
JOB = '{"namespace": "a-job", "claim": "shared", "path": "/shared"}'
SEEN_AS = {"shard": "index=1, count=3", "job": "namespace='a-job'", "user": "10001", "system": "clicks"}


def test_each_component_is_short_and_imports_only_stages_and_configs_inside():
    assert len(FILES) == len(COMPONENTS) + 1, "those of the pipelines, and train_job in place of train"
    for path in FILES:
        tree = ast.parse(path.read_text())
        function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
        statements = function.body[1:]
        assert len(statements) <= 12, path.name
        assert not [n for n in ast.walk(function) if isinstance(n, ast.If | ast.For | ast.While)], path.name
        for node in statements:
            if isinstance(node, ast.ImportFrom):
                assert node.module.startswith(("crops.stages", "crops.config", "pathlib")), (
                    f"{path.name}: {node.module}"
                )
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
    champion.python_func(
        registry="", fingerprint="x", config="{}", out=SimpleNamespace(path=str(out)), metrics=metrics
    )
    assert logged == {"champion_found": 0.0}
    assert plug.optional(out) is None, "stage.json alone is no champion"


def _module(name):
    """The stage's module, whichever wing it stands in."""
    (path,) = Path(stages.__file__).parent.rglob(f"{name}.py")
    return ".".join(
        ("crops", "stages", *path.relative_to(Path(stages.__file__).parent).with_suffix("").parts)
    )


# `finish` has a test of its own: it has no config and no metrics.
@pytest.mark.parametrize("name", [path.stem for path in FILES if path.stem != "finish"])
def test_each_component_calls_its_stage_with_what_it_was_given(name, tmp_path, monkeypatch):
    """`python_func` as KFP calls it, the stage recorded instead of run: folders and config arrive, its
    numbers are kept.
    """
    function = getattr(importlib.import_module(f"components.{name}"), name).python_func
    texts = {"shard": "1/3", "system": "clicks", "job": JOB, "user": "10001"}
    stage, seen, logged = importlib.import_module(_module(name)), {}, {}

    def recorded(*args, **kwargs):
        seen["args"], seen["kwargs"] = args, kwargs
        return StageReport(numbers={"rows": 3})

    monkeypatch.setattr(stage, "run", recorded)
    pages = {}
    for page in ("recall", "verdict", "docs", "page"):
        monkeypatch.setattr(show, page, lambda out, to: pages.__setitem__(to, out))
    given = {}
    for parameter, kind in inspect.get_annotations(function).items():
        place = tmp_path / parameter
        (place / "truth").mkdir(parents=True)
        (place / "truth/some.json").write_text("{}")
        (place / "some.json").write_text("{}")
        (place / "train.json").write_text(json.dumps({"system": parameter}))
        artifact = SimpleNamespace(path=str(place))
        text = "{}" if parameter.endswith("config") else texts.get(parameter, f"a-{parameter}")
        many = typing.get_origin(typing.get_args(kind)[0]) is list if typing.get_args(kind) else False
        given[parameter] = kind(text) if kind in {str, int} else [artifact] if many else artifact
    given["metrics"].log_metric = logged.__setitem__
    given["metrics"].path = str(tmp_path / "metrics.json")
    function(**given)
    assert logged == {"rows": 3.0}
    kept = json.loads((tmp_path / "out/stage.json").read_text())
    assert kept["numbers"] == {"rows": 3}
    assert kept["stage"].startswith(name.removesuffix("_job"))
    values = [kept["stage"], *(str(v) for v in (*seen["args"], *seen["kwargs"].values()))]
    shown = {"table", "reasons", "docs", "page"} & {p for p in given if str(tmp_path / p) in pages}
    shown |= {"beside"}  # tests/crops/stages/test_plug.py
    assert set(pages.values()) <= {str(tmp_path / "out")}, "of what the stage wrote"
    configs = {parameter for parameter in given if parameter.endswith("config")}
    for parameter in given.keys() - shown - configs - {"out", "metrics", "fingerprint"}:
        passed = (str(tmp_path / parameter), f"a-{parameter}", SEEN_AS.get(parameter, "\0"))
        assert any(each in value for value in values for each in passed), f"{name} drops {parameter}"
    assert str(tmp_path / "out") in values
