"""One model folder of Triton's repository: a release's query encoder, self-contained, under a name of its
own.

query_encoder-crops-2-1f3a.../
  config.pbtxt
  1/model.py        crops/release/triton/model.py
  1/lib/            the few files of this project that it imports
  1/release/        the release's files of the encoder
  warmup/query      one query, encoded by every instance before the model says that it is ready
"""

import json
import os
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import crops
from crops import cores
from crops.errors import InputError
from crops.release import layout

PREFIX = "query_encoder"
LIBRARY = (
    "__init__.py",
    "cores.py",
    "errors.py",
    "text.py",
    "tables/__init__.py",
    "tables/folders.py",
    "release/__init__.py",
    "release/layout.py",
    "release/encoder.py",
    "release/reranker.py",
)
WARMUP = "how to make bread at home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """How Triton runs one model.

    count         instances, each with a process and session of its own; one per core that this
                  process may use where `providers` is the CPU
    threads       of ONNX Runtime in an instance
    max_batch     texts in one call of an instance
    delay_us      how long the batcher waits for more texts once an instance is free
    max_waiting   requests that may wait; more are refused at once
    providers     ONNX Runtime execution providers, best first (CUDAExecutionProvider and
                  TensorrtExecutionProvider on a GPU)
    """

    count: int = 0
    threads: int = 1
    max_batch: int = 32
    delay_us: int = 0
    max_waiting: int = 512
    providers: Sequence[str] = ("CPUExecutionProvider",)


def model_name(uri: str, checksum: str) -> str:
    """Triton's name of a release's encoder: readable, and by its content, so that equal names mean equal
    vectors.

    >>> model_name("models:/crops/2", "1f3a5c7e9b2d" + "0" * 52)
    'query_encoder-crops-2-1f3a5c7e9b2d'
    """
    readable = "-".join(part for part in uri.removeprefix("models:/").split("/") if part)
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in readable)
    return f"{PREFIX}-{safe}-{checksum[:12]}"


def write(release: Path, repository: Path, name: str, instances: Instances) -> Path:
    """Puts the encoder of the folder `release`, which the caller has checked, into `repository` as model
    `name`; returns its folder, which appears when it is whole.

    A model of that name is left alone: names are by content, and a Triton may be reading it.
    """
    folder = repository / name
    if (folder / "config.pbtxt").is_file():
        return folder
    width = _width(release)
    partial = repository / f".{name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    version = partial / "1"
    (version / "release").mkdir(parents=True)
    for file in filter(layout.of_model, layout.files(release)):
        shutil.copyfile(release / file, version / "release" / file)
    shutil.copyfile(Path(__file__).with_name("model.py"), version / "model.py")
    for file in LIBRARY:
        (version / "lib/crops" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(crops.__path__[0]) / file, version / "lib/crops" / file)
    (partial / "warmup").mkdir()
    (partial / "warmup/query").write_bytes(struct.pack("<I", len(WARMUP)) + WARMUP.encode())
    reranks = (release / layout.RERANKER).is_file()
    text = config(name, width, instances, reranks=reranks)
    (partial / "config.pbtxt").write_text(text, encoding="utf-8")
    partial.rename(folder)
    return folder


def _width(release: Path) -> int:
    for name in layout.ENCODER_FILES:
        if not (release / name).is_file():
            raise InputError(release / name, "no such file, expected the folder of a registered release")
    return int(json.loads((release / layout.ENCODER).read_text(encoding="utf-8"))["width"])


# A text with a document beside it is read with it, and answered by a logit.
DOCUMENT = ', { name: "document" data_type: TYPE_STRING dims: [ 1 ] optional: true }'
LOGIT = ', { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] }'


def config(name: str, width: int, instances: Instances, *, reranks: bool = False) -> str:
    """The model's config.pbtxt. `width` is H of the output float32 [H]; `reranks`: the release has a
    re-ranker.
    """
    gpu = instances.providers[0] != "CPUExecutionProvider"
    count = instances.count or (1 if gpu else cores.count())
    return f"""name: "{name}"
backend: "python"
max_batch_size: {instances.max_batch}
input [ {{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }}{DOCUMENT if reranks else ""} ]
output [ {{ name: "vector" data_type: TYPE_FP32 dims: [ {width} ] }}{LOGIT if reranks else ""} ]
instance_group [ {{ kind: {"KIND_GPU" if gpu else "KIND_CPU"} count: {count} }} ]
version_policy {{ specific {{ versions: [ 1 ] }} }}
dynamic_batching {{
  max_queue_delay_microseconds: {instances.delay_us}
  default_queue_policy {{
    timeout_action: REJECT
    allow_timeout_override: true
    max_queue_size: {instances.max_waiting}
  }}
}}
parameters [
  {{ key: "threads" value: {{ string_value: "{instances.threads}" }} }},
  {{ key: "providers" value: {{ string_value: "{",".join(instances.providers)}" }} }}
]
model_warmup [ {{
  name: "a query"
  batch_size: 1
  inputs {{ key: "text" value: {{ data_type: TYPE_STRING dims: [ 1 ] input_data_file: "query" }} }}
}} ]
"""
