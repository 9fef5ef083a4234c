"""Releases that must not reach everybody, made of good ones, for tests and the rehearsal."""

import shutil
from pathlib import Path

from crops.release import layout
from crops.tables import artifacts

WASTE, TIMES = 2048, 40  # 16 MB of weights read again and again: some tens of milliseconds a query


def other_index(encoder: Path, index: Path, folder: Path) -> Path:
    """`folder`: the release `encoder` with the index of the release `index`, as if they belonged together."""
    shutil.copytree(encoder, folder)
    for name in (layout.INDEX, layout.INDEX_FACTS):
        shutil.copyfile(index / name, folder / name)
    return folder


def slowed(good: Path, folder: Path, *, times: int = TIMES) -> Path:
    """`folder`: the release `good` whose encoder gives the same vectors after some needless work."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    shutil.copytree(good, folder)
    model = onnx.load(str(folder / layout.QUERY_ENCODER))
    graph, width = model.graph, int(artifacts.read_json(folder / layout.ENCODER)["width"])
    (kept,) = [name for name in (output.name for output in graph.output) if name == "vectors"]
    for node in graph.node:
        node.output[:] = ["plain" if name == kept else name for name in node.output]
    rng = np.random.default_rng(0)
    for name, shape in (("first", (width, WASTE)), ("again", (WASTE, WASTE))):
        weights = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, name))
    graph.initializer.append(numpy_helper.from_array(np.float32(1e-30), "nothing"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), "last"))
    graph.node.append(helper.make_node("MatMul", ["plain", "first"], ["waste0"]))
    for n in range(times):
        graph.node.append(helper.make_node("MatMul", [f"waste{n}", "again"], [f"waste{n + 1}"]))
    graph.node.append(helper.make_node("ReduceSum", [f"waste{times}", "last"], ["sum"], keepdims=1))
    graph.node.append(helper.make_node("Mul", ["sum", "nothing"], ["small"]))
    graph.node.append(helper.make_node("Add", ["plain", "small"], [kept]))
    onnx.save(model, str(folder / layout.QUERY_ENCODER))
    return folder
