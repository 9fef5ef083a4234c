"""Answers of an LLM across runs: a folder, here or in an object store, of Parquet files that are written once
and never changed, so that any number of runs and machines may share it.
"""

import hashlib
from collections.abc import Collection, Mapping
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from crops.release import document
from crops.tables import artifacts

SCHEMA = pa.schema([("key", pa.string()), ("text", pa.string()), ("tokens", pa.int64())])


def take(store: str, keys: Collection[str]) -> dict[str, tuple[str, int]]:
    """Text and tokens of those of `keys` (of `llm.key_of`) that some run has put there.

    store: path or fsspec URL of the folder; it need not be there yet. An InputError names a broken file.
    """
    filesystem, folder = document.opened(store)
    wanted, answers = [("key", "in", set(keys))], dict[str, tuple[str, int]]()
    if not keys or not filesystem.isdir(folder):
        return answers
    for path in sorted(filesystem.glob(f"{folder}/*.parquet")):
        with artifacts.readable(path):
            part = pq.read_table(path, filesystem=filesystem, schema=SCHEMA, filters=wanted)
        rows = zip(*(part[name].to_pylist() for name in SCHEMA.names), strict=True)
        answers |= {key: (text, tokens) for key, text, tokens in rows}
    return answers


def put(store: str, answers: Mapping[str, tuple[str, int]]) -> None:
    """Adds text and tokens by key as one file, whole or not at all; the same answers again are the same
    file.
    """
    if not answers:
        return
    keys = sorted(answers)
    columns = [keys, [answers[key][0] for key in keys], [answers[key][1] for key in keys]]
    content = BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), content)
    filesystem, folder = document.opened(store)
    filesystem.makedirs(folder, exist_ok=True)
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    document.replace(filesystem, f"{folder}/{name}.parquet", content.getvalue())
