"""What lies on disk for one table: its files by their types, and everything that cannot be read as it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.errors import InputError
from crops.tables import artifacts
from crops.tables.records import Table
from crops.validation import casts

# Names that an engine gives to the place of a row, so that a log's own columns of these names are in its way.
PLACE = ("filename", "file_row_number")
# Milliseconds that microseconds can hold in 64 bits; and what stands for a time beyond: the last day that
# everything here can hold, which the checks call impossible.
MS_MAX = (2**63 - 1) // 1_000
LAST_MS = 9_214_646_400_000
ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Files that have the table's columns in the same types.

    types   column -> its type as it is stored; a column of the table that is missing here is null
    origin  the file that the one file here stands for, where it had to be written anew
    """

    files: tuple[Path, ...]
    types: dict[str, pa.DataType]
    origin: Path | None = None

    def reading(self, table: Table, name: str) -> casts.Reading:
        """How the column is read."""
        dtype = self.types.get(name, pa.null())
        reading = casts.reading(dtype, table.schema.field(name).type)
        assert reading is not None, f"{table.name}.{name}: {dtype}"  # `of` has refused it
        return reading


@dataclass(frozen=True, slots=True)
class Source:
    """One table on disk, or some days of it. `notes`: what was not read or is taken as unknown; `unsure`: the
    columns in which a value may not fit, in whatever file of the table.
    """

    table: Table
    shapes: tuple[Shape, ...]
    notes: tuple[str, ...]
    unsure: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """Every file that is read."""
        return sorted(file for shape in self.shapes for file in shape.files)

    @property
    def origins(self) -> dict[Path, Path]:
        """Every file that is read, by the log's own file that it is or stands for."""
        return {shape.origin or file: file for shape in self.shapes for file in shape.files}

    def without(self, origins: Collection[Path]) -> "Source":
        """The rest of it, where these files of the log are left out."""
        shapes = (
            replace(s, files=() if s.origin in origins else tuple(f for f in s.files if f not in origins))
            for s in self.shapes
        )
        return replace(self, shapes=tuple(shape for shape in shapes if shape.files))


def of(logs: Path, table: Table) -> tuple[Source, list[InputError]]:
    """Reads the footers of all files of the table: what can be read, and everything that cannot."""
    root = logs / table.name
    files = artifacts.parquet_files(logs, table)
    if not files:
        return Source(table, (), ()), [artifacts.no_files(logs, table)]
    shapes: dict[tuple, list[Path]] = defaultdict(list)
    faults: dict[str, list[Path]] = defaultdict(list)
    missing: Counter[str] = Counter()
    for path in files:
        try:
            with artifacts.readable(path), pq.ParquetFile(path) as file:
                schema = file.schema_arrow
                if twice := artifacts.twins(schema, table):
                    raise InputError(path, twice)
                types = _types(file, table)
        except InputError as error:
            faults[str(error).removeprefix(f"{path}: ")].append(path)
            continue
        for problem in _problems(table, schema, types):
            faults[problem].append(path)
        missing.update(f.name for f in table.schema if f.name not in types and f.name not in table.optional)
        shapes[tuple(types.items())].append(path)
    notes = [
        f"{table.name}: no column {name!r} in {n:,} file(s): taken as unknown" for name, n in missing.items()
    ]
    read = tuple(Shape(tuple(paths), dict(types)) for types, paths in shapes.items())
    # Of what is refused below nobody asks.
    unsure = () if faults else _unsure(table, read)
    source = Source(table, read, (*notes, *_unread(root, files)), unsure)
    return source, [InputError(paths[0], _with_count(fault, paths)) for fault, paths in faults.items()]


def beside(logs: Path, tables: Iterable[Table]) -> list[str]:
    """Files directly under `logs` that look like data: nothing reads them."""
    names = [p.name for p in sorted(logs.iterdir()) if p.is_file() and _like_data(p)]
    expected = ", ".join(f"{table.name}/" for table in tables)
    return [_listed(names, f"files beside the folders {expected}")] if names else []


def rewritten(source: Source, scratch: Path, *, engine: str) -> Source:
    """The same source, with the files that the engine cannot read as they are written anew under `scratch`, a
    row at the place of the row that it stands for.

    Milliseconds that no microseconds hold end both engines' reading; Spark knows no 16-bit floats; and a
    column that is named as the engines name a row's place is in the way of that.
    """
    shapes: list[Shape] = []
    for shape in source.shapes:
        odd = [path for path in shape.files if _is_odd(path, shape, engine)]
        if usual := tuple(path for path in shape.files if path not in odd):
            shapes.append(Shape(usual, shape.types))
        for path in odd:
            target = scratch / f"{source.table.name}-{len(shapes)}.parquet"
            shapes.append(Shape((_rewrite(path, shape, target),), _easy(shape.types), origin=path))
    return Source(source.table, tuple(shapes), source.notes, _unsure(source.table, shapes))


def unfit(name: str) -> str:
    """The helper column with the text of a value that does not fit."""
    return f"unfit_{name}"


def _unsure(table: Table, shapes: Sequence[Shape]) -> tuple[str, ...]:
    return tuple(n for n in table.schema.names if not all(s.reading(table, n).exact for s in shapes))


def _types(file: pq.ParquetFile, table: Table) -> dict[str, pa.DataType]:
    """The types of the table's columns in this file. INT96, Spark's old form of a time, is an instant."""
    physical = {
        file.schema.column(n).path: file.schema.column(n).physical_type for n in range(len(file.schema))
    }
    types = {}
    for field in table.schema:
        if field.name in file.schema_arrow.names:
            dtype = casts.plain(file.schema_arrow.field(field.name).type)
            types[field.name] = pa.timestamp("us") if physical.get(field.name) == "INT96" else dtype
    return types


def _problems(table: Table, schema: pa.Schema, types: dict[str, pa.DataType]) -> list[str]:
    faults = []
    for field in table.schema:
        if field.name in types:
            if casts.reading(types[field.name], field.type) is None:
                hint = casts.HINTS[casts.SQL_TYPES[field.type]]
                is_, expected = casts.named(types[field.name]), casts.named(field.type)
                faults.append(f"column {field.name!r} is {is_}, expected {expected}: {hint}")
        elif not field.nullable and field.name not in table.optional:
            faults.append(str(artifacts.absent(Path(), field, schema)).removeprefix(".: "))
    return faults


def _with_count(fault: str, paths: Sequence[Path]) -> str:
    return f"{fault} (and {len(paths) - 1:,} more files)" if len(paths) > 1 else fault


def _unread(root: Path, files: Sequence[Path]) -> list[str]:
    read = {*files}
    names = [str(path.relative_to(root.parent)) for path in artifacts.walk(root) if path not in read]
    return [_listed(names, "no Parquet files by their names")] if names else []


def _listed(names: Sequence[str], reason: str) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"not read, {reason}: {', '.join(names[:3])}{more}"


def _like_data(path: Path) -> bool:
    kinds = (*artifacts.PARQUET, ".csv", ".tsv", ".jsonl", ".ndjson", ".avro", ".orc", ".arrow", ".feather")
    return any(suffix.lower() in kinds for suffix in path.suffixes)


def _is_odd(path: Path, shape: Shape, engine: str) -> bool:
    narrow = engine == "spark" and pa.float16() in shape.types.values()
    with pq.ParquetFile(path) as file:
        return narrow or not {*PLACE}.isdisjoint(file.schema_arrow.names) or _is_late(file, shape)


def _is_late(file: pq.ParquetFile, shape: Shape) -> bool:
    """Whether a column of milliseconds may hold one that is out of reach, by the file's own statistics."""
    for n in range(len(file.schema)):
        dtype = shape.types.get(file.schema.column(n).path)
        if dtype is None or not _is_coarse(dtype):
            continue
        for group in range(file.num_row_groups):
            stats = file.metadata.row_group(group).column(n).statistics
            if stats is None or not stats.has_min_max:
                return True
            try:
                low, high = stats.min_raw, stats.max_raw
            except (ValueError, OverflowError):
                return True
            if low < -MS_MAX or high > MS_MAX:
                return True
    return False


def _is_coarse(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(dtype)) and dtype.unit in ("s", "ms")


def _easy(types: dict[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The types of a file that was written anew."""
    return {
        name: pa.timestamp("us", "UTC") if _is_coarse(t) else pa.float32() if t == pa.float16() else t
        for name, t in types.items()
    }


def _rewrite(path: Path, shape: Shape, target: Path) -> Path:
    """Only the table's columns; a time out of reach becomes LAST_MS."""
    easy = _easy(shape.types)
    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([*easy.items()])
    with pq.ParquetFile(path) as file, pq.ParquetWriter(target, schema) as writer:
        for batch in file.iter_batches(batch_size=ROWS, columns=[*easy]):
            columns = [_eased(batch.column(name), dtype) for name, dtype in easy.items()]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return target


def _eased(values: pa.Array, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_coarse(values.type):
        limit = LAST_MS if values.type.unit == "ms" else LAST_MS // 1_000
        stored = values.cast(pa.int64())
        late = pc.greater(pc.max_element_wise(stored, pc.negate(stored)), limit)
        values = pc.if_else(late, limit, stored).cast(pa.timestamp(values.type.unit, "UTC"))
    return values.cast(dtype)
