"""The drawing of the training pipeline in docs/architecture.md, from the pipeline that Kubeflow is given.

.venv/bin/python docs/drawing.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PIPELINE, PAGE = ROOT / "pipelines/training.yaml", ROOT / "docs/architecture.md"
BEGIN, END = "<!-- by docs/drawing.py -->\n", "<!-- end -->"
# The report reads what all others made, `finish` runs whatever happened: their arrows would hide the rest.
LEFT_OUT = ("report", "finish")
NUMBER = re.compile(r"-\d+$")  # of the second task of a component
PRODUCER = re.compile(r"pipelinechannel--(?P<task>.+)-\w+$")

Json = dict[str, Any]


def mermaid(spec: Json) -> str:
    """The stages, and an arrow where one reads what another made, unless a longer way says so already."""
    found = {
        (source, target) for source, target in _arrows(spec, spec["root"]["dag"], {}) if source != target
    }
    edges = {(a, b) for a, b in found if not {a, b} & {*LEFT_OUT}}
    direct = sorted(edge for edge in edges if not _reaches(edges - {edge}, *edge))
    return "\n".join(["```mermaid", "flowchart TD", *(f"  {a} --> {b}" for a, b in direct), "```", ""])


def _arrows(spec: Json, dag: Json, outside: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """(stage, stage) of every task in `dag`. outside: an input of this DAG -> the stages that make it."""
    inside = {name: _stages(spec, task, name) for name, task in dag["tasks"].items()}
    for name, task in dag["tasks"].items():
        reads: dict[str, list[str]] = {}
        for key, given in task.get("inputs", {}).get("artifacts", {}).items():
            for one in given.get("artifactList", {}).get("artifacts", []) or [given]:
                if "taskOutputArtifact" in one:
                    # Of a loop: the one stage in it whose name its output begins with.
                    output, producer = (
                        one["taskOutputArtifact"]["outputArtifactKey"],
                        one["taskOutputArtifact"]["producerTask"],
                    )
                    told = PRODUCER.match(output)
                    makers = (
                        [NUMBER.sub("", told["task"])]
                        if told and len(inside[producer]) > 1
                        else inside[producer]
                    )
                else:
                    makers = outside.get(one.get("componentInputArtifact", ""), [])
                reads.setdefault(key, []).extend(makers)
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _arrows(spec, component["dag"], reads)
            continue
        for makers in reads.values():
            yield from ((maker, _name(name)) for maker in makers)
        for before in task.get("dependentTasks", []):  # also what only waits: `after`
            if len(inside[before]) == 1:
                yield inside[before][0], _name(name)


def _stages(spec: Json, task: Json, name: str) -> list[str]:
    component = spec["components"][task["componentRef"]["name"]]
    if "dag" not in component:
        return [_name(name)]
    return [stage for n, t in component["dag"]["tasks"].items() for stage in _stages(spec, t, n)]


def _name(task: str) -> str:
    """`train-2` is the stage train; KFP's importer brings the logs."""
    return {"importer": "logs"}.get(NUMBER.sub("", task), NUMBER.sub("", task))


def _reaches(edges: set[tuple[str, str]], start: str, goal: str) -> bool:
    """Whether a way leads from start to goal."""
    seen, new = {start}, {start}
    while new:
        new = {b for a, b in edges if a in new} - seen
        seen |= new
    return goal in seen


def drawn(page: str, spec: Json) -> str:
    """The page with the drawing of this pipeline between the marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{mermaid(spec)}{END}{rest.split(END, 1)[1]}"


def spec() -> Json:
    """The compiled training pipeline; what of the file is for Kubernetes comes behind it."""
    found: Json = next(yaml.safe_load_all(PIPELINE.read_text(encoding="utf-8")))
    return found


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8"), spec()), encoding="utf-8")
