"""Stands in for the stages of the pipeline in every process that has this folder on PYTHONPATH: tests of the
wiring alone.

A stub writes the JSON that the report reads and one line per run to $CROPS_STUB_RUNS; $CROPS_STUB_KILL names
a stage that kills the runner above it (SIGKILL), $CROPS_STUB_FAIL one that raises; with
$CROPS_STUB_LAST_FIT the settings ask for the last fit.
"""

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import types
from pathlib import Path

STAGES = (
    "validate",
    "augment",
    "knowledge",
    "theta",
    "score",
    "discriminate",
    "label",
    "train",
    "export",
    "index",
    "evaluate",
    "first",
    "refit",
    "gate",
    "register",
    "deploy",
)
TABLE = {s: {"clicks": 0.4, "crops": 0.5} for s in ("ct", "qr", "qr_raw")}
FILES = {
    "validate": {"data_docs/index.html": "<main>of the log</main>"},
    "augment": {
        "augment.json": {
            "perspectives": {"click": {"candidates": 7, "examples": [{"query": "q", "text": "<t>"}]}}
        }
    },
    "discriminate": {"discriminate.json": {"reliability": [{"predicted": 0.1, "observed": 0.2}]}},
    "label": {"label.json": {"ladder": {"5": 0.9}, "hierarchy": {"chosen_by": "stub"}}},
    "train": {"train.json": {"checks": [{"step": 1, "loss": 2.0, "valid_recall_at_100": 0.1}]}},
    "evaluate": {
        "metrics.json": {
            "recall_at_100": TABLE,
            "recall_at_20": TABLE,
            "ndcg_at_4": {"crops": 0.1},
            "intervals": {},
            "counts": {},
        },
        "beir/queries.jsonl": "{}",
    },
    "gate": {
        "verdict.json": {
            "verdict": os.environ.get("CROPS_STUB_VERDICT", "promote"),
            "reasons": ["a stub"],
            "checks": [],
        }
    },
    "register": {"release.json": {"uri": "models:/crops/1"}},
}


def _run(name):
    def run(*args, **kwargs):
        from crops.errors import InputError
        from crops.stages.base import StageReport
        from crops.tables import artifacts

        with open(os.environ["CROPS_STUB_RUNS"], "a") as file:
            file.write(json.dumps([name, kwargs.get("system") or kwargs.get("alias") or ""]) + "\n")
        if os.environ.get("CROPS_STUB_KILL") == name:
            os.kill(int(os.environ["CROPS_STUB_RUNNER"]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("CROPS_STUB_FAIL") == name:
            raise InputError("logs/results", "stage is 'shown'", row=7)
        out = next(a for a in reversed(args) if isinstance(a, Path))  # a config may stand behind it
        with artifacts.replacing(out) as folder:
            for file_name, value in FILES.get(name, {"some.json": {}}).items():
                if isinstance(value, str):
                    (folder / file_name).parent.mkdir()
                    (folder / file_name).write_text(value)
                    continue
                artifacts.write_json(folder / file_name, {"system": kwargs.get("system"), **value})
        return StageReport(numbers={"rows": 3}, notes=("a stub note",) if name == "augment" else ())

    return run


class _EmptyRegistry:
    def __init__(self, uri, name):
        assert name

    def holder(self, alias):
        return None


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path, target=None):
        if fullname == "crops.config.register":  # the registry's name is taken from it
            return None
        part = fullname.rsplit(".", 1)
        if part[0].startswith(("crops.stages.", "crops.config")) and part[-1] in STAGES:
            return importlib.util.spec_from_loader(fullname, self)
        if fullname == "crops.services.registry":
            return importlib.util.spec_from_loader(fullname, self)
        return None

    def exec_module(self, module):
        package, name = module.__name__.rsplit(".", 1)
        if package.startswith("crops.stages"):
            module.run = _run(name)
            module.Settings = types.SimpleNamespace(from_json=lambda *sections: sections)  # refit's
        elif package == "crops.services":
            module.CHAMPION, module.Registry = "champion", _EmptyRegistry
            module.near = str  # a URI as it is
        else:
            from crops.config.base import StageConfig

            config = f"{name.capitalize()}Config"
            fields = {
                "name": property(lambda _self: "crops"),
                "last_fit": property(lambda _self: "CROPS_STUB_LAST_FIT" in os.environ),
            }
            setattr(module, config, type(config, (StageConfig,), fields))


if os.environ.get("CROPS_STUB_RUNS"):
    sys.meta_path.insert(0, _Stubs())
