"""The stages as functions: tables in, tables and an encoder out, for notebooks and for your own programs.

Each function calls the stage of the same name, so it gives what the verb gives. Tables are pandas, Polars,
Arrow or DuckDB, or lists of dicts; what comes back is Arrow (`.to_pandas()`).
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from crops import perspectives
from crops.errors import ConfigError, InputError
from crops.tables import artifacts, records

if TYPE_CHECKING:
    import numpy as np

    from crops.retriever.encoder import Encoder
    from crops.retriever.loss import AnyLoss


class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


# Arrow, pandas, Polars, a DuckDB relation: whatever hands out an Arrow stream; or rows as dicts.
Tabular: TypeAlias = _ArrowStream | pa.Table | Sequence[Mapping[str, Any]]
Logs: TypeAlias = str | Path | Mapping[str, Tabular]
Settings: TypeAlias = Any  # the fields of the stage's section in `crops config`, by name

# Relevant pairs, as a test set has them.
_PAIRS = records.table("pairs", "query string, doc_id string", key="query doc_id")
# What Arrow casts all the same: numbers to ids of other digits, to times in a unit that nobody said, and "not
# a number" to true.
_GUESSES = (
    (pa.types.is_string, (pa.types.is_floating, pa.types.is_decimal, pa.types.is_temporal)),
    (pa.types.is_timestamp, (pa.types.is_integer, pa.types.is_floating)),
    (pa.types.is_boolean, (pa.types.is_floating,)),
)
# What to say where the log does not tell.
_ADVICE = {"stage": " ('exposed' where all were shown)", "liked": " (False where nobody says)"}
# A catalogue without keywords, cover texts or related queries simply has none.
_EMPTY = {"keywords": [], "cover_text": "", "related_queries": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """What a stage wrote. A temporary folder goes when nothing refers to it any more."""

    path: Path
    notes: tuple[str, ...] = ()
    owner: tempfile.TemporaryDirectory | None = field(default=None, repr=False)

    def table(self, kind: records.Table) -> pa.Table:
        return artifacts.read(self.path, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """What `mine` found in the logs. Columns are those of `crops/tables/records.py`."""

    logs: _Folder
    folder: _Folder

    @property
    def candidates(self) -> pa.Table:
        """(query, video_id, perspective, later_query, first_ts, support), training days only."""
        return self.folder.table(records.CANDIDATES)

    @property
    def documents(self) -> pa.Table:
        """(doc_id, text): the catalogue."""
        return self.folder.table(records.DOCUMENTS)

    @property
    def tests(self) -> dict[str, pa.Table]:
        """Pairs of the held-out days: `ct` (query, video_id) clicked, `qr_raw` consumed after a
        reformulation, before the discriminator has looked at them.
        """
        return {"ct": self.folder.table(records.TEST_CT), "qr_raw": self.folder.table(records.TEST_QR)}

    @property
    def valid(self) -> pa.Table:
        """(query, video_id, later_query): reformulations of the last training day, for early stopping."""
        return self.folder.table(records.VALID_QR)

    @property
    def queries(self) -> pa.Table:
        """(query, split, searches, clicks): the distinct queries of the training (`train`) and held-out days
        (`test`).
        """
        return self.folder.table(records.QUERIES)

    @property
    def summary(self) -> dict[str, Any]:
        """Counts and examples per perspective, the days, the gaps between searches."""
        summary: dict[str, Any] = artifacts.read_json(self.folder.path / "augment.json")
        return summary

    @property
    def notes(self) -> tuple[str, ...]:
        """What the log lacks, in words."""
        return self.folder.notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Every candidate with the discriminator's θ and whether it is kept."""

    folder: _Folder
    mined: Mined | None = None

    @property
    def scored(self) -> pa.Table:
        """(query, doc_id, perspective, later_query, first_ts, support, theta, kept); theta is null where it
        was not asked.
        """
        return self.folder.table(records.SCORED)

    @property
    def theta(self) -> dict[str, Any]:
        """How far θ can be trusted: auc, ece, reliability, and pairs kept per threshold."""
        report: dict[str, Any] = artifacts.read_json(self.folder.path / "discriminate.json")
        return report

    @property
    def tests(self) -> dict[str, pa.Table]:
        """The sets of `Mined`, and `qr`: the pairs of `qr_raw` with θ > α."""
        raw = self.mined.tests if self.mined else {}
        return raw | {"qr": self.folder.table(records.TEST_QR)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Graded samples, the ladder and the hierarchy that was chosen from it."""

    folder: _Folder
    scored: Scored
    perspectives: tuple[str, ...] = ()

    @property
    def samples(self) -> pa.Table:
        """(query, doc_id, perspective, label int8, theta), one row per pair."""
        if not self.perspectives:
            return self.folder.table(records.SAMPLES)
        from crops.engines import session
        from crops.retriever import samples
        from crops.retriever.systems import System as Seen

        labels = self.hierarchy["labels"]
        with (
            tempfile.TemporaryDirectory(prefix="crops-") as scratch,
            session.opened("duckdb", scratch=Path(scratch)) as house,
        ):
            pairs, origins = (
                house.read(self.folder.path, table) for table in (records.SAMPLES, records.ORIGINS)
            )
            seen = samples.visible(pairs, origins, Seen(only=self.perspectives), labels, set(labels.values()))
            return house.backend.to_pyarrow(seen.order_by("query", "doc_id"))

    @property
    def origins(self) -> pa.Table:
        """(query, doc_id, perspective): every perspective that a sample came from."""
        return self.folder.table(records.ORIGINS)

    @property
    def knowledge(self) -> pa.Table:
        """(query, doc_id, text, exemplar_id, model): the LLM's texts; no rows without an LLM."""
        return self.folder.table(records.KNOWLEDGE)

    @property
    def ladder(self) -> dict[str, float]:
        """Label -> share of relevant pairs in it, as θ (or people's grades) has it."""
        ladder: dict[str, float] = artifacts.read_json(self.folder.path / "label.json")["ladder"]
        return ladder

    @property
    def hierarchy(self) -> dict[str, Any]:
        """The labels, the lowest labels that may be anchors, and why."""
        hierarchy: dict[str, Any] = artifacts.read_json(self.folder.path / "label.json")["hierarchy"]
        return hierarchy

    @property
    def tests(self) -> dict[str, pa.Table]:
        """See `Scored.tests`."""
        return self.scored.tests

    def only(self, *names: str) -> "Labelled":
        """The samples that come from these perspectives alone, graded by these alone."""
        every = [row.name for row in perspectives.every()]
        if unknown := [name for name in names if name not in every]:
            raise ConfigError(f"perspective {unknown[0]!r} is unknown, expected some of {', '.join(every)}")
        return replace(self, perspectives=names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A dual encoder at its best check, and how it came there."""

    encoder: "Encoder"
    history: dict[str, Any]
    anchor_min: int

    def encode(self, texts: Sequence[str], *, kind: str = "query") -> "np.ndarray":
        """float32 [N, H], each row of length 1; kind is `query` or `document`."""
        return self.encoder.encode(texts, kind=kind)  # type: ignore[arg-type]

    def save(self, folder: str | Path) -> None:
        """Weights, tokenizer and encoder.json into `folder`; `crops export --encoder` reads it."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.encoder.save(Path(folder), system="crops")


System: TypeAlias = Trained | str | Path | Callable[[list[str]], Sequence[Sequence[str]]]


def mine(logs: Logs, *, out: str | Path | None = None, **settings: Settings) -> Mined:
    """Mines candidates, documents and test sets from logs.

    logs      a folder of Parquet tables, or tables by name: `searches`, `results`, `videos` and, if there is
              one, `feed` (and those of registered perspectives), with the columns that
              `crops/tables/records.py` names. Ids may be numbers, times without a zone are UTC, and columns
              that may be null may be missing; in tables by name those that may be empty, too. What is not in
              these very types, or holds a null where none may be, goes through `crops validate` first: the
              notes say what it left out.
    out       where to keep what is written; by default a temporary folder
    settings  of section `augment`, e.g. `window_s=60`

    Returns what `crops augment` writes.
    """
    from crops.config.augment import AugmentConfig
    from crops.stages.logs import augment

    config = AugmentConfig.parse(settings)
    if not isinstance(logs, str | Path | Mapping):
        raise InputError("logs", f"is a {type(logs).__name__}, expected a folder, or tables by name")
    tables = _logs(logs) if isinstance(logs, Mapping) else _checked(Path(logs))
    made = _folder(out, "augment")
    with _in_memory(tables, "logs"):
        report = augment.run(tables.path, made.path, config)
    return Mined(logs=tables, folder=replace(made, notes=(*tables.notes, *report.notes)))


def knowledge(mined: Mined, llm: str, *, out: str | Path | None = None, **settings: Settings) -> Path:
    """Asks an LLM for descriptions of other relevant videos; returns the folder that `discriminate` takes.

    llm       an OpenAI-compatible URL, or `local` (extra `llm`)
    settings  of section `knowledge`, e.g. `token_budget=100_000`
    """
    from crops.config.knowledge import KnowledgeConfig
    from crops.stages.logs import knowledge as stage

    made = Path(out) if out else mined.folder.path.with_name("knowledge")
    config = KnowledgeConfig.parse(settings)
    # In a thread, because the stage starts an event loop and a notebook has one running already.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(stage.run, mined.folder.path, made, config, llm=llm).result()
    return made


def discriminate(
    mined: Mined, *, knowledge: str | Path | None = None, out: str | Path | None = None, **settings: Settings
) -> Scored:
    """Trains and calibrates θ on the log's long plays and skips, scores the candidates and decides.

    knowledge  what `knowledge` returned
    settings   of section `discriminate`, e.g. `alpha=0.5` or `base="path/to/cross-encoder"`
    """
    from crops.config.discriminate import DiscriminateConfig
    from crops.stages.learn import discriminate as stage

    made = _folder(out, "discriminate")
    texts = [Path(knowledge)] if knowledge else []
    config = DiscriminateConfig.parse(settings)
    report = stage.whole(mined.logs.path, mined.folder.path, made.path, config, knowledge=texts)
    return Scored(folder=replace(made, notes=report.notes), mined=mined)


def label(
    pairs: Mined | Scored | Tabular, *, out: str | Path | None = None, **settings: Settings
) -> Labelled:
    """Grades pairs, measures the ladder and chooses the hierarchy.

    pairs     what `discriminate` or `mine` returned (θ is then trained with its defaults), or a table
              (query, doc_id or video_id, perspective; optional theta, kept) of pairs that you trust as they
              are: without theta the ladder knows nothing and only positives are anchors
    settings  of section `label`, e.g. `hierarchy="paper"`
    """
    from crops.config.label import LabelConfig
    from crops.stages.learn import label as stage

    if isinstance(pairs, Mined):
        pairs = discriminate(pairs)
    scored = pairs if isinstance(pairs, Scored) else _scored(pairs)
    made = _folder(out, "label")
    with _in_memory(scored.folder, "pairs"):
        report = stage.run(scored.folder.path, made.path, LabelConfig.parse(settings))
    return Labelled(folder=replace(made, notes=report.notes), scored=scored)


def _scored(pairs: Tabular) -> Scored:
    read = _by_document(_arrow(pairs, "pairs"))
    if "kept" not in read.column_names:
        read = read.append_column("kept", pa.repeat(True, read.num_rows))
    if "support" not in read.column_names:
        read = read.append_column("support", pa.repeat(1, read.num_rows))
    scored = _conformed(read, replace(records.SCORED, name="pairs"))
    theta = scored["theta"]
    if len(odd := theta.filter(pc.or_(pc.less(theta, 0), pc.greater(theta, 1)))):
        raise InputError("pairs", f"theta is {odd[0].as_py():g}, expected 0..1")
    folder = _folder(None, "scored")
    folder.path.mkdir()
    artifacts.write(folder.path, records.SCORED, scored)
    for table in (records.KNOWLEDGE, records.TEST_QR):
        artifacts.write(folder.path, table, table.schema.empty_table())
    return Scored(folder=folder)


def _folder(out: str | Path | None, name: str) -> _Folder:
    if out is not None:
        return _Folder(path=Path(out))
    scratch = tempfile.TemporaryDirectory(prefix="crops-")
    return _Folder(path=Path(scratch.name) / name, owner=scratch)


@contextmanager
def _in_memory(folder: _Folder, name: str) -> Iterator[None]:
    """What is wrong with a folder of ours that the user has never seen, by the name of what was given."""
    try:
        yield
    except InputError as error:
        if folder.owner is None or not str(error).startswith(f"{folder.path}/"):
            raise
        raise InputError(name, str(error).removeprefix(f"{folder.path}/")) from error


def _arrow(rows: Tabular, name: str) -> pa.Table:
    """Rows may leave out what they do not know: a column is there if one of them has it."""
    if isinstance(rows, list | tuple):
        if odd := [type(row).__name__ for row in rows if not isinstance(row, Mapping)]:
            raise InputError(name, f"holds a {odd[0]}, expected rows as dicts")
        columns = dict.fromkeys(column for row in rows for column in row)
        rows = {column: [row.get(column) for row in rows] for column in columns}
    try:
        return pa.table(rows)
    except (TypeError, ValueError) as error:
        if not isinstance(rows, Mapping) and not hasattr(rows, "__arrow_c_stream__"):
            raise InputError(name, f"is a {type(rows).__name__}, expected a table") from error
        raise InputError(name, f"cannot be read as a table: {'; '.join(map(str, error.args))}") from error


def _conformed(rows: pa.Table, table: records.Table) -> pa.Table:
    """`rows` with the columns and types of `table`; null or empty where a column may be missing."""
    whole, faults = _filled(rows, table)
    if faults:
        raise InputError.of(table.name, faults)
    return _typed(whole, table)


def _typed(whole: pa.Table, table: records.Table) -> pa.Table:
    """What `_filled` returned without a fault, in the types of `table`."""
    columns = [_cast(whole[column.name], column, table.name) for column in table.schema]
    return pa.table(columns, schema=table.schema)


def _filled(rows: pa.Table, table: records.Table) -> tuple[pa.Table, list[InputError]]:
    """`rows` with every column of `table`, in the types that they came in, and a fault for each column that
    may not be missing.
    """
    if not rows.num_columns:  # an empty list or frame
        rows = table.schema.empty_table()
    present, faults = ", ".join(rows.column_names), []
    for column in table.schema:
        if column.name in rows.column_names:
            continue
        if column.nullable:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
        elif column.name in _EMPTY:
            rows = rows.append_column(column, pa.array([_EMPTY[column.name]] * rows.num_rows, column.type))
        else:
            advice = _ADVICE.get(column.name, "")
            problem = f"column {column.name!r} ({column.type}) is missing{advice}; columns: {present}"
            faults.append(InputError(table.name, problem))
    return rows.select([name for name in table.schema.names if name in rows.column_names]), faults


def _cast(values: pa.ChunkedArray, column: pa.Field, table: str) -> pa.ChunkedArray:
    if values.null_count and not column.nullable:
        raise InputError(table, f"column {column.name!r} has {values.null_count} nulls, expected none")
    if values.null_count == len(values):  # a type that nothing tells
        return pa.chunked_array([pa.nulls(len(values), column.type)])
    stored = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    stored = getattr(stored, "storage_type", stored)  # pandas' periods are numbers
    if any(wanted(column.type) and any(is_kind(stored) for is_kind in kinds) for wanted, kinds in _GUESSES):
        raise InputError(table, f"column {column.name!r} is {values.type}, expected {column.type}")
    # pandas counts time in nanoseconds and plays in double precision; neither is worth an error.
    exact = not (pa.types.is_timestamp(values.type) or pa.types.is_floating(column.type))
    try:
        return values.cast(column.type, safe=exact)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        problem = f"column {column.name!r} is {values.type}, expected {column.type}"
        raise InputError(table, f"{problem}: {str(error).splitlines()[0]}") from error


def _logs(tables: Mapping[str, Tabular]) -> _Folder:
    """The tables as a temporary folder of logs, dated by their times; results by those of their searches."""
    names = {table.name: table for table in records.logs()}
    if unknown := sorted(tables.keys() - names.keys()):
        raise InputError("logs", f"unknown table {unknown[0]!r}; known: {', '.join(names)}")
    needed = (records.SEARCHES, records.RESULTS, records.VIDEOS)
    if missing := [table.name for table in needed if table.name not in tables]:
        raise InputError("logs", f"table {missing[0]!r} is missing")
    whole = {name: _filled(_arrow(rows, name), names[name]) for name, rows in tables.items()}
    if faults := [fault for _rows, missing in whole.values() for fault in missing]:
        raise InputError.of("logs", faults)
    try:
        arrow = {name: _typed(rows, names[name]) for name, (rows, _none) in whole.items()}
        if len(ids := arrow["videos"]["video_id"]) > pc.count_distinct(ids).as_py():
            raise InputError("videos", "a video_id stands twice")
    except InputError:  # other types, and cells and rows that are not as they should be, are validation's
        raw = _folder(None, "given")
        for name, (rows, _none) in whole.items():
            artifacts.write(raw.path, replace(names[name], schema=rows.schema, partitioned=False), rows)
        try:
            return _validated(raw.path)
        except InputError as error:  # of a file that the user has never seen
            told = str(error).replace(f"{raw.path}/", "").replace("/part-0.parquet", "")
            raise InputError("logs", told.removeprefix(f"{raw.path}: ")) from error
    searches = arrow["searches"]
    if not len(searches):
        raise InputError("searches", "no rows")
    dates = {name: _dates(rows["ts"]) for name, rows in arrow.items() if "ts" in rows.column_names}
    place = pc.index_in(arrow["results"]["search_id"], searches["search_id"].combine_chunks())
    if place.null_count:
        lost = arrow["results"]["search_id"].filter(pc.is_null(place))
        raise InputError("results", f"search_id {lost[0].as_py()!r} is not in searches ({len(lost)} rows)")
    dates["results"] = dates["searches"].take(place)
    folder = _folder(None, "logs")
    folder.path.mkdir()
    for name, rows in arrow.items():
        dated = rows.append_column("date", dates[name]) if name in dates else rows
        artifacts.write(folder.path, names[name], dated)
    return folder


def _checked(logs: Path) -> _Folder:
    """The folder itself where its tables are in our types; else what validation accepts of it."""
    if not logs.is_dir():
        file = "is a file: `crops import table` makes a folder of tables of it"
        raise InputError(logs, file if logs.exists() else "no such folder")
    try:
        for table in records.logs():
            if artifacts.exists(logs, table):
                artifacts.table_files(logs, table)
        return _Folder(path=logs)
    except InputError:
        return _validated(logs)


def _validated(logs: Path) -> _Folder:
    """What validation accepts of the tables in `logs`, and what it says of the rest."""
    from crops.config.validate import ValidateConfig
    from crops.stages.logs import validate

    made = _folder(None, "validate")
    return replace(made, notes=tuple(validate.run(logs, made.path, ValidateConfig()).notes))


def _dates(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.date32()).cast(pa.string())


def train(
    samples: Labelled | Tabular,
    documents: Mined | Tabular,
    *,
    base: str | None = None,
    loss: "AnyLoss" = "h_infonce",
    anchor_min: int | None = None,
    valid: Tabular | None = None,
    log: Callable[[int, dict[str, float]], object] | None = None,
    **settings: Settings,
) -> Trained:
    """Trains a dual encoder on graded samples.

    samples     what `label` returned, or a table (query, doc_id, label 1..5)
    documents   what `mine` returned, or a table (doc_id, text); it also holds the texts of all samples
    base        a Hugging Face path; `static:` before it: its token vectors alone, for CPUs; or `small`: made
                from the texts at hand; by default MiniLM's token vectors
    loss        `h_infonce`, `info_nce`, `softmax_ce` or `one_anchor`, or your own: `loss_of(rivals)` or
                a function of scores float [Q, D] and labels int [Q, D] that returns a scalar
    anchor_min  lowest label that is an anchor; by default what the ladder chose, else the positives'
    valid       (query, doc_id or video_id) to stop by; by default `documents.valid`
    log         called with the step and its numbers at every check
    settings    of section `train`, e.g. `steps=500` or `learning_rate=2e-5`; not `generative`, which is a
                second retriever in the folder that the verb writes
    """
    from crops.config.train import TrainConfig
    from crops.labels import rank
    from crops.retriever.errors import TrainingError
    from crops.retriever.systems import System as Seen
    from crops.stages.learn import inputs
    from crops.stages.learn import train as stage

    config = TrainConfig.parse(settings if base is None else {"base": base, **settings})
    if not isinstance(loss, str) and not callable(loss):
        raise ConfigError(f"loss is a {type(loss).__name__}, expected a name, loss_of(rivals) or a function")
    if config.generative:
        raise ConfigError("generative is a setting of the verb: `crops train` writes the second retriever")
    lowest, graded = [perspectives.positive_min()], perspectives.labels()
    only: tuple[str, ...] = ()
    if isinstance(samples, Labelled):
        lowest, graded = samples.hierarchy["anchor_min_candidates"], samples.hierarchy["labels"]
        only = samples.perspectives
    lowest = lowest if anchor_min is None else [anchor_min]
    with tempfile.TemporaryDirectory(prefix="crops-") as name:
        scratch = Path(name)
        pairs = _samples(samples, scratch / "samples")
        catalogue = _documents(documents, scratch / "documents", valid=valid, pairs=pairs)
        try:
            read = inputs.inputs_of(
                pairs, catalogue, Seen(only=only), graded, weights=stage.weights_of(config)
            )
        except InputError as error:  # of a folder that the user has never seen
            raise InputError("samples", str(error).removeprefix(f"{pairs / 'samples'}: ")) from error
        queries = len(read.samples.queries)
        plans = [stage.plan_of(config, loss, rank(label, graded), queries=queries) for label in lowest]
        try:
            encoder, history, plan = stage.fitted(
                config,
                read,
                plans,
                checkpoints=scratch / "checkpoints",
                log=log or (lambda _step, _numbers: None),
            )
        except TrainingError as error:
            raise ConfigError(f"train: {error}") from error
    return Trained(
        encoder=encoder.eval(), history=history, anchor_min=sorted({*graded.values()})[plan.anchor_min - 1]
    )


def _samples(samples: Labelled | Tabular, folder: Path) -> Path:
    """A folder of what `label` writes."""
    if isinstance(samples, Labelled):
        return samples.folder.path
    read = _by_document(_arrow(samples, "samples"))
    if "perspective" not in read.column_names:
        read = read.append_column("perspective", pa.repeat(perspectives.CLICK.name, read.num_rows))
    graded, highest = _conformed(read, records.SAMPLES), max(perspectives.labels().values())
    for label in graded["label"].unique().to_pylist():
        if label not in range(highest + 1):
            raise InputError("samples", f"label is {label}, expected 1..{highest}")
    folder.mkdir()
    artifacts.write(folder, records.SAMPLES, graded)
    artifacts.write(folder, records.ORIGINS, records.ORIGINS.schema.empty_table())
    return folder


def _documents(documents: Mined | Tabular, folder: Path, *, valid: Tabular | None, pairs: Path) -> Path:
    """A folder of what training reads of `augment`: documents, queries, and what it stops by."""
    if isinstance(documents, Mined) and valid is None:
        return documents.folder.path
    folder.mkdir()
    if isinstance(documents, Mined):
        texts, queries = documents.documents, documents.queries
    else:
        texts = _catalogue(documents)
        asked = artifacts.read(pairs, records.SAMPLES)["query"].unique().to_pylist()
        rows = [{"query": q, "split": "train", "searches": 0, "clicks": 0, "users": 0} for q in asked]
        queries = pa.Table.from_pylist(rows, records.QUERIES.schema)
    validation = records.VALID_QR.schema.empty_table()
    if valid is not None:
        pairs_of_valid = _pairs(valid, "valid")
        in_documents = pc.is_in(pairs_of_valid["doc_id"], texts["doc_id"].combine_chunks())
        if len(pairs_of_valid) and not pc.any(in_documents).as_py():
            raise InputError("valid", "none of its doc_ids is in documents")
        read = _arrow(valid, "valid")
        later = read["later_query"] if "later_query" in read.column_names else pairs_of_valid["query"]
        renamed = pairs_of_valid.rename_columns({"doc_id": "video_id"}).append_column("later_query", later)
        validation = _conformed(renamed, replace(records.VALID_QR, name="valid"))
    for table, content in (
        (records.DOCUMENTS, texts),
        (records.QUERIES, queries),
        (records.VALID_QR, validation),
    ):
        artifacts.write(folder, table, content)
    return folder


def _by_document(rows: pa.Table) -> pa.Table:
    """`rows` with its ids under `doc_id`, where they stand under `video_id`."""
    if "doc_id" in rows.column_names or "video_id" not in rows.column_names:
        return rows
    return rows.rename_columns({"video_id": "doc_id"})


def _catalogue(documents: Tabular) -> pa.Table:
    """(doc_id, text); an InputError where one id has two texts, of which only one would be read."""
    rows = _conformed(_arrow(documents, "documents"), records.DOCUMENTS)
    texts = rows.group_by("doc_id").aggregate([("text", "count_distinct")])
    if len(twice := texts.filter(pc.greater(texts["text_count_distinct"], 1))):
        raise InputError("documents", f"doc_id {twice['doc_id'][0].as_py()!r} stands twice, with other texts")
    return rows


def _pairs(rows: Tabular, name: str) -> pa.Table:
    """(query, doc_id) of a table that may call its ids video_id."""
    return _conformed(_by_document(_arrow(rows, name)), replace(_PAIRS, name=name))


def evaluate(
    systems: Mapping[str, System],
    documents: Mined | Tabular,
    tests: Mapping[str, Tabular] | Tabular,
    *,
    k: int = 100,
    draws: int = 1_000,
    seed: int = 0,
) -> pa.Table:
    """recall@k of every system on every test set, with a 95 % bootstrap interval over queries.

    systems    by name: what `train` returned, the folder of an encoder (saved, or written by `crops train`),
               `"bm25"`, or a function of one's own from a list of queries to lists of ranked doc_ids
    documents  what `mine` returned, or a table (doc_id, text): all of them are ranked
    tests      by name, tables (query, doc_id or video_id) of relevant pairs; or one such table

    Returns (set, system, queries, recall, low, high); a test set without a query has no row, one with a
    single query no interval.
    """
    import numpy as np

    from crops.evaluation import metrics
    from crops.retriever.systems import relevant_rows

    if not isinstance(systems, Mapping):
        raise ConfigError(f"systems is a {type(systems).__name__}, expected systems by name")
    if not k >= 1 or not draws >= 1:
        raise ConfigError(f"k is {k} and draws is {draws}, expected both >= 1")
    whole = documents.documents if isinstance(documents, Mined) else _catalogue(documents)
    catalogue = dict(zip(whole["doc_id"].to_pylist(), whole["text"].to_pylist(), strict=True))
    ids = list(catalogue)
    named: Mapping[str, Tabular] = tests if isinstance(tests, Mapping) else {"test": tests}
    pairs = {name: _pairs(rows, name) for name, rows in named.items()}
    sets = {
        name: relevant_rows(zip(*(column.to_pylist() for column in rows), strict=True), ids)
        for name, rows in pairs.items()
    }
    queries = sorted({query for relevant in sets.values() for query in relevant})
    if not queries and any(map(len, pairs.values())):
        raise InputError("tests", f"none of their doc_ids is in documents ({len(ids):,} of them)")
    place = {query: row for row, query in enumerate(queries)}
    rows = []
    for system, ranker in systems.items() if queries else ():
        ranked = _ranked(ranker, queries, catalogue, k)
        for name, relevant in sets.items():
            if relevant:
                rankings = ranked[[place[query] for query in relevant]]
                values = metrics.recall_per_query(rankings, [set(docs) for docs in relevant.values()], k)
                low, high = (
                    metrics.bootstrap(values, draws=draws, seed=seed) if len(values) > 1 else (None, None)
                )
                rows.append((name, system, len(relevant), float(np.mean(values)), low, high))
    names = ("set", "system", "queries", "recall", "low", "high")
    kinds = (pa.string(), pa.string(), pa.int64(), pa.float64(), pa.float64(), pa.float64())
    ordered = sorted(rows, key=lambda row: list(sets).index(row[0]))
    columns = [pa.array([row[n] for row in ordered], kind) for n, kind in enumerate(kinds)]
    return pa.table(columns, names=list(names))


def _ranked(system: System, queries: list[str], catalogue: dict[str, str], k: int) -> "np.ndarray":
    """int [Q, k]: rows of the catalogue, best first, -1 where there is none."""
    import numpy as np

    from crops.evaluation import rank
    from crops.release import index

    ids, texts = list(catalogue), list(catalogue.values())
    if system == "bm25":
        return rank.bm25(queries, texts, k)
    if isinstance(system, str | Path):
        from crops.retriever import encoder

        if not Path(system).is_dir():
            raise ConfigError(f"system is {str(system)!r}, expected 'bm25' or the folder of an encoder")
        system = Trained(encoder=encoder.load(Path(system)), history={}, anchor_min=0)
    if isinstance(system, Trained):
        vectors = system.encode(texts, kind="document"), system.encode(queries)
        return index.exact(*vectors, k)[1]
    row = {doc_id: n for n, doc_id in enumerate(ids)}
    if not callable(system):
        raise ConfigError(f"system is {system!r}, expected an encoder, its folder, 'bm25' or a function")
    ranked = np.full((len(queries), k), -1)
    answer = system(queries)
    rankings = [list(ranking)[:k] for ranking in answer] if isinstance(answer, Iterable) else []
    if len(rankings) != len(queries):
        raise ConfigError(f"a system gave {len(rankings)} rankings for {len(queries)} queries")
    for n, ranking in enumerate(rankings):
        if unknown := [doc_id for doc_id in ranking if str(doc_id) not in row]:
            raise ConfigError(f"a system ranks {unknown[0]!r}, which is no doc_id of documents")
        ranked[n, : len(ranking)] = [row[str(doc_id)] for doc_id in ranking]
    return ranked
