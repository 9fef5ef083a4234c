"""Tables and reports on disk. A folder appears under its name only when it is whole (crops.tables.folders);
reading checks the schema first.

A stage writes all that it makes into one folder:

    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.DOCUMENTS, table)
        artifacts.write_json(folder / "augment.json", numbers)
"""

import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops import memory
from crops.errors import InputError
from crops.tables import folders
from crops.tables.records import DOCUMENTS, VALID_QR, Table

DATE = pa.field("date", pa.string())
# Rows in one row group: DuckDB and Arrow read whole groups, and 250 k rows of our tables are 5 to 20 MB.
ROW_GROUP = 250_000
PARQUET = (".parquet", ".parq", ".pq")
HIDDEN = (".", "_")


replacing = folders.replacing


def named(path: Path) -> Path:
    """The path itself; an InputError where its name is no text, which no engine here opens."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InputError(shown, "the name is not UTF-8: rename it") from error
    return path


def walk(root: Path) -> list[Path]:
    """Every visible file below `root`, in order, through links to folders and files: the one walk that
    reading and fingerprints share.

    Names that begin with a dot or an underscore are somebody's bookkeeping. An InputError names a folder that
    cannot be listed and a link that leads nowhere or into itself.
    """
    root = named(Path(root))
    paths: list[Path] = []

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError) or Path(error.filename) != root:
            raise InputError(error.filename, f"cannot be read: {error.strerror}") from error

    for folder, below, names in os.walk(root, followlinks=True, onerror=refuse):
        below[:] = sorted(name for name in below if not name.startswith(HIDDEN))
        for name in below:
            directory = Path(folder, name)
            if directory.is_symlink() and Path(folder).resolve().is_relative_to(directory.resolve()):
                raise InputError(directory, "is a link to a folder that it lies in")
        paths += [Path(folder, name) for name in names if not name.startswith(HIDDEN)]
    for path in paths:
        if not named(path).exists():
            raise InputError(path, f"is a link to {os.readlink(path)}, which is not there")
    return sorted(paths)


def parquet_files(folder: Path, table: Table) -> list[Path]:
    """The table's Parquet files, in order, none of them opened; empty where there are none."""
    return [p for p in walk(Path(folder) / table.name) if p.suffix.lower() in PARQUET]


def no_files(folder: Path, table: Table) -> InputError:
    """What to say where a table has no Parquet file; names what lies there instead."""
    root = Path(folder) / table.name
    others = [p for p in walk(root) if p.suffix.lower() not in PARQUET]
    beside = [p for p in sorted(root.parent.glob(f"{table.name}.*")) if p.is_file()]
    instead = ", ".join(str(p.relative_to(root.parent)) for p in [*others[:3], *beside])
    hint = f": only Parquet files inside of {table.name}/ are read, and here is {instead}" if instead else ""
    return InputError(root, f"no Parquet file of the table {table.name!r} found here{hint}")


def table_files(folder: Path, table: Table) -> list[Path]:
    """The table's Parquet files, in order; an InputError where there are none or some cannot be read as
    `table`, with all that is wrong.
    """
    files = parquet_files(folder, table)
    if not files:
        raise no_files(folder, table)
    if faults := [fault for path in files for fault in schema_faults(path, table)]:
        raise InputError.of(Path(folder) / table.name, faults)
    return files


def rows(folder: Path, table: Table) -> int:
    """How many rows the table's files say they hold."""
    return sum(int(pq.read_metadata(path).num_rows) for path in table_files(folder, table))


def part(number: int) -> str:
    """The name of a table's file number `place`, so that names sort as numbers do."""
    return f"part-{number:05d}.parquet"


def exists(folder: Path, table: Table) -> bool:
    """Whether the folder holds the table at all (a missing perspective is no error)."""
    return bool(parquet_files(folder, table))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what Arrow says of a broken file into an InputError with its name."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(path, f"not a readable Parquet file ({str(error).splitlines()[0]})") from error


def schema_faults(path: Path, table: Table) -> list[InputError]:
    """Reads only the footer of one file; every column of another name or type than the table's."""
    try:
        with readable(path):
            schema = pq.read_schema(path)
    except InputError as error:
        return [error]
    if twice := twins(schema, table):
        return [InputError(path, twice)]
    faults = []
    for field in table.schema:
        if field.name not in schema.names:
            if field.name not in table.optional:
                faults.append(absent(path, field, schema))
        elif not _same_type(actual := schema.field(field.name).type, field.type):
            hint = "; `crops validate` reads many other types and writes this one"
            faults.append(InputError(path, f"column {field.name!r} is {actual}, expected {field.type}{hint}"))
    return faults


def twins(schema: pa.Schema, table: Table) -> str | None:
    """What is wrong where a file has two columns of one of the table's names."""
    twice = [name for name in table.schema.names if schema.names.count(name) > 1]
    return f"column {twice[0]!r} stands twice" if twice else None


def absent(path: Path, field: pa.Field, schema: pa.Schema) -> InputError:
    """A column that is not there, beside those that are."""
    columns = ", ".join(schema.names)
    return InputError(path, f"column {field.name!r} ({field.type}) is missing; columns: {columns}")


def check_schema(path: Path, table: Table) -> None:
    """An InputError with all that `schema_faults` finds."""
    if faults := schema_faults(path, table):
        raise InputError.of(path, faults)


def _same_type(actual: pa.DataType, expected: pa.DataType) -> bool:
    """Equal, or another physical form of the same thing (large or dictionary strings, other time units in
    UTC).
    """
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    if pa.types.is_null(actual):
        return True
    kind = pa.types
    if kind.is_timestamp(expected):
        return kind.is_timestamp(actual) and actual.tz in ("UTC", "Etc/UTC", "+00:00")
    if kind.is_string(expected):
        return kind.is_string(actual) or kind.is_large_string(actual) or kind.is_string_view(actual)
    if kind.is_list(expected):
        is_list = kind.is_list(actual) or kind.is_large_list(actual)
        return is_list and _same_type(actual.value_type, expected.value_type)
    for family in (kind.is_integer, kind.is_floating):
        if family(expected):
            return family(actual)
    return actual == expected


def batches(
    folder: Path, table: Table, *, rows: int = ROW_GROUP, columns: list[str] | None = None
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """The table file by file in batches of at most `rows`, cast to its schema; memory does not grow with the
    table.
    """
    schema = _columns(table, columns)
    for path in table_files(folder, table):
        with pq.ParquetFile(path) as file:
            present = [name for name in schema.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=rows, columns=present):
                whole = _cast(pa.Table.from_batches([batch]), schema, path)
                yield path, whole.to_batches(max_chunksize=rows)[0]


def _columns(table: Table, names: list[str] | None) -> pa.Schema:
    return table.schema if names is None else pa.schema([table.schema.field(name) for name in names])


def _cast(raw: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    try:
        arrays = [
            raw.column(f.name).cast(f.type) if f.name in raw.column_names else pa.nulls(raw.num_rows, f.type)
            for f in schema
        ]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(path, f"cannot be read as {schema.names}: {str(error).splitlines()[0]}") from error
    return pa.table(arrays, schema=pa.schema([f.with_nullable(True) for f in schema]))


def read(
    folder: Path, table: Table, columns: list[str] | None = None, /, **values: Collection[str]
) -> pa.Table:
    """The table in memory, cast to its schema (`date` is left out): the whole of it, an InputError where it
    cannot fit, or of a larger one the rows whose columns hold one of the `values` that stand beside their
    names.
    """
    schema = _columns(table, columns)
    if values:
        parts = batches(folder, table, columns=list(dict.fromkeys((*schema.names, *values))))
        rows = [among(pa.Table.from_batches([batch]), **values) for _path, batch in parts]
        none = pa.schema([field.with_nullable(True) for field in schema]).empty_table()
        return pa.concat_tables([none, *(part.select(schema.names) for part in rows)])
    memory.refuse(folder / table.name, "read whole", _bytes(folder, table, {*schema.names}))
    pieces = []
    for path in table_files(folder, table):
        with readable(path):
            present = [name for name in schema.names if name in pq.read_schema(path).names]
            raw = pq.read_table(path, columns=present, partitioning=None)
        pieces.append(_cast(raw, schema, path))
    return pa.concat_tables(pieces)


def _bytes(folder: Path, table: Table, columns: Collection[str]) -> int:
    """What the columns take at least in memory: as their files encode them, uncompressed."""
    held = 0
    for path in table_files(folder, table):
        with readable(path):
            metadata = pq.read_metadata(path)
        for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
            chunks = (group.column(n) for n in range(group.num_columns))
            held += sum(
                chunk.total_uncompressed_size
                for chunk in chunks
                if chunk.path_in_schema.split(".")[0] in columns
            )
    return held


def among(rows: pa.Table, **columns: Collection[str]) -> pa.Table:
    """The rows whose columns hold one of the values that stand beside their names."""
    for name, values in columns.items():
        rows = rows.filter(pc.is_in(rows[name], pa.array([*values], pa.string())))
    return rows


def texts(folder: Path, table: Table = DOCUMENTS) -> dict[str, str]:
    """doc_id -> text of the documents, or of another table that has both."""
    rows = read(folder, table, ["doc_id", "text"])
    return dict(zip(rows["doc_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def held_out(folder: Path, texts: Mapping[str, str]) -> set[tuple[str, str]]:
    """(query, text) of the validation pairs in `folder`, which training must not learn from in any way: by
    text, because one video may be there under two ids.
    """
    rows = read(folder, VALID_QR, ["query", "video_id"]).to_pylist()
    return {(r["query"], texts[r["video_id"]]) for r in rows if r["video_id"] in texts}


def write(folder: Path, table: Table, rows: pa.Table) -> int:
    """Writes `rows` as the table (one file, or one per `date` column value where partitioned); returns the
    row count.

    `rows` of a partitioned table carry an extra string column `date`. Meant for use inside `replacing`.
    """
    root = Path(folder) / table.name
    root.mkdir(parents=True, exist_ok=True)
    ordered = pa.table([rows.column(f.name).cast(f.type) for f in table.schema], schema=table.schema)
    if not table.partitioned:
        pq.write_table(ordered, root / "part-0.parquet", compression="zstd", row_group_size=ROW_GROUP)
        return rows.num_rows
    import pyarrow.dataset as ds  # not at the top: it loads pandas, which a task without tables does not need

    dated = ordered.append_column(DATE, rows.column("date").cast(pa.string()))
    ds.write_dataset(
        dated,
        root,
        format="parquet",
        partitioning=ds.partitioning(pa.schema([DATE]), flavor="hive"),
        basename_template="part-{i}.parquet",
        existing_data_behavior="overwrite_or_ignore",
        max_rows_per_group=ROW_GROUP,
        file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
        use_threads=False,
    )
    return rows.num_rows


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all; NaN is refused (no answer is not an answer)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


class _Lacks(InputError, KeyError):
    """What it says is for people, and templates take it for a key that is not there."""

    __str__ = Exception.__str__  # KeyError shows the repr of it


class _Facts(dict[str, Any]):
    """An object of a JSON file, which says what it lacks as a fault of the file."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> Any:
        keys = ", ".join(map(repr, self)) or "none"
        raise _Lacks(self.path, f"has no {key!r}; keys there: {keys}")


def read_json(path: Path) -> Any:
    """The JSON at `path`; an InputError that names it where it is missing or broken, and where a key that it
    lacks is asked for.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_hook=lambda values: _Facts(values, path))
    except FileNotFoundError as error:
        raise InputError(path, "no such file; the stage that writes it has not run") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"not JSON: {error}") from error


def mirror(folder: Path, tables: Sequence[str], url: str, sent: Path) -> int:
    """Makes the folders `tables` at the fsspec URL what they are under `folder`; returns how many files were
    copied. sent: file that keeps size and time of what was copied, so that only what changed is copied again.

    What is gone here is removed there last: a reader in between may see rows twice, never too few.
    """
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.invalidate_cache()
    root, count = root.rstrip("/"), 0
    sent_before: dict[str, Any] = read_json(sent).get(url, {}) if sent.exists() else {}
    remote: dict[str, Any] = {}
    for table in tables:
        listed = {name.removeprefix(f"{root}/") for name in filesystem.find(f"{root}/{table}")}
        for path in sorted(p for p in (folder / table).rglob("*") if p.is_file()):
            name, status = str(path.relative_to(folder)), path.stat()
            remote[name] = [status.st_size, status.st_mtime_ns]
            if name not in listed or sent_before.get(name) != remote[name]:
                filesystem.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
                filesystem.put_file(str(path), f"{root}/{name}")
                count += 1
        for name in sorted(listed - remote.keys()):
            filesystem.rm_file(f"{root}/{name}")
    write_json(sent, {url: remote})
    return count


def publish(files: Sequence[Path], url: str) -> None:
    """Copies `files` to the folder at the fsspec URL, in that order: whoever finds the last one finds all."""
    import fsspec

    filesystem, folder = fsspec.core.url_to_fs(url)
    filesystem.makedirs(folder, exist_ok=True)
    for file in files:
        filesystem.pipe_file(f"{folder}/{file.name}", file.read_bytes())
