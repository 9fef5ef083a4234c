"""What makes a release's folder a model that MLflow loads: `mlflow.pyfunc.load_model(URI).predict(queries)`.

The loader is MLflow's own for sentence-transformers, so that whoever loads it needs nothing of this project.
"""

import json
from importlib import metadata
from pathlib import Path

from crops.release import layout

EXAMPLE = ["sour dough bread", "红烧肉怎么做"]
NEEDS = ("mlflow", "sentence-transformers", "torch", "transformers")


def write(release: Path, *, width: int) -> None:
    """Writes MLmodel, its input example and what it needs beside the folder that it loads, all with relative
    paths; the same release has the same bytes.
    """
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    vectors = TensorSpec(np.dtype("float32"), (-1, width))
    model = Model(
        artifact_path="release",
        utc_time_created="1970-01-01 00:00:00",  # another time would be another checksum
        model_uuid=layout.sha256(release / layout.QUERY_ENCODER)[:32],
        signature=ModelSignature(inputs=Schema([ColSpec("string")]), outputs=Schema([vectors])),
        saved_input_example_info={
            "artifact_path": layout.INPUT_EXAMPLE,
            "type": "json_object",
            "pandas_orient": None,
        },
    )
    model.add_flavor(
        "python_function",
        loader_module="mlflow.sentence_transformers",
        data=layout.HUB,
        env={"virtualenv": layout.PYTHON_ENV},
    )
    model.save(str(release / layout.MLMODEL))
    example = json.dumps(EXAMPLE, ensure_ascii=False)
    (release / layout.INPUT_EXAMPLE).write_text(example + "\n", encoding="utf-8")
    (release / layout.PYTHON_ENV).write_text(f"dependencies:\n- -r {layout.REQUIREMENTS}\n", encoding="utf-8")
    (release / layout.REQUIREMENTS).write_text("".join(map(_needed, NEEDS)), encoding="utf-8")


def _needed(name: str) -> str:
    try:
        return f"{name}=={metadata.version(name).partition('+')[0]}\n"
    except metadata.PackageNotFoundError:
        return f"{name}\n"
