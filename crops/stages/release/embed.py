"""The vectors of documents, as the release's index has them, in one Parquet file that any vector store loads.

Blocks of documents are kept beside the file while it is made: whoever starts again encodes only what is
missing.
"""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crops import accelerator, progress
from crops.config.index import IndexConfig
from crops.errors import InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.stages.base import WHOLE, Shard, StageReport
from crops.stages.release.index import encoded
from crops.tables import artifacts, folders, records

# Batches of one block: what is lost when the machine dies is at most so many batches of encoding.
BATCHES = 16
ABOUT = b"crops.embed"  # in the file's metadata: who wrote it, and with which encoder


def parts_of(out: Path) -> Path:
    """The folder with the blocks of a file that is being made."""
    return out.with_name(f".{out.name}.parts")


def refuse(out: Path) -> None:
    """An InputError where `out` is there and not a file of this stage."""
    if out.exists() and not _is_ours(out):
        raise InputError(out, "is there already, and `crops embed` has not written it: name another file")


def run(release: Path, documents: Path, out: Path, cfg: IndexConfig, *, shard: Shard = WHOLE) -> StageReport:
    """Writes `out`: doc_id, and vector as a list of float32 of the encoder's width, unit length, in the order
    of the table `documents`; of one shard only its documents.

    `release`: a release, or what `crops export` wrote. Raises InputError where `out` is a file that this has
    not written.
    """
    refuse(out)
    encoder = OnnxEncoder(release, providers=accelerator.providers())
    identity = _identity(release)
    with folders.held(out), folders.in_words(out):
        parts = parts_of(out)
        parts.mkdir(parents=True, exist_ok=True)
        total = artifacts.rows(documents, records.DOCUMENTS)
        done, earlier = [], 0
        with progress.bar(total=total, desc="encoding documents", unit="document") as bar:
            for number, (ids, texts, read) in enumerate(_blocks(documents, cfg.batch * BATCHES, shard)):
                path = parts / artifacts.part(number)
                key = _key(identity, ids, texts)
                if _holds(path, key):
                    earlier += len(ids)
                else:
                    vectors = encoded(encoder, texts, batch=cfg.batch)
                    _write(path, iter([_table(ids, vectors)]), {"key": key, "width": encoder.width})
                done.append(path)
                bar.update(read)
        if not done:
            raise InputError(documents / "documents", f"no document in shard {shard.index}/{shard.count}")
        facts = {"encoder": identity, "width": encoder.width, "shard": f"{shard.index}/{shard.count}"}
        written = _write(out, (pq.read_table(path) for path in done), facts)
        shutil.rmtree(parts)
    return StageReport(numbers={"documents": written, "width": encoder.width, "of_an_earlier_start": earlier})


def _identity(release: Path) -> str:
    """What the vectors depend on; of a release checked."""
    if layout.is_release(release):
        layout.check(release, wanted=layout.of_tower)
    return layout.tower(release)


def _blocks(documents: Path, size: int, shard: Shard) -> Iterator[tuple[list[str], list[str], int]]:
    """Ids and texts of `size` documents of the shard at a time (the last block: fewer), and how many rows
    were read for them. The same log and shard, the same blocks.
    """
    ids: list[str] = []
    texts: list[str] = []
    read = 0
    for _, batch in artifacts.batches(documents, records.DOCUMENTS):
        for doc_id, text in zip(batch["doc_id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            read += 1
            if shard.holds(doc_id):
                ids.append(doc_id)
                texts.append(text)
            if len(ids) == size:
                yield ids, texts, read
                ids, texts, read = [], [], 0
    if ids:
        yield ids, texts, read


def _key(identity: str, ids: list[str], texts: list[str]) -> str:
    content = json.dumps([identity, ids, texts], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _table(ids: list[str], vectors: np.ndarray) -> pa.Table:
    """vectors float32 [N, H]."""
    width = vectors.shape[1]
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel(), pa.float32())
    rows = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table({"doc_id": pa.array(ids, pa.string()), "vector": rows})


def _write(path: Path, tables: Iterator[pa.Table], facts: dict[str, object]) -> int:
    """The tables as one file with a row group each, which appears when it is whole; the number of rows."""
    partial, rows = path.with_name(f".{path.name}.partial"), 0
    first = next(tables)
    schema = first.schema.with_metadata({ABOUT: json.dumps(facts)})
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in itertools.chain((first,), tables):
            writer.write_table(table.replace_schema_metadata(schema.metadata))
            rows += table.num_rows
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    return rows


def _about(path: Path) -> dict[str, object] | None:
    """What `_write` said of the file; None: it did not write it, or not to its end."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    told: dict[str, object] | None = json.loads(metadata[ABOUT]) if ABOUT in metadata else None
    return told


def _is_ours(path: Path) -> bool:
    return path.is_file() and _about(path) is not None


def _holds(path: Path, key: str) -> bool:
    return path.is_file() and (_about(path) or {}).get("key") == key
