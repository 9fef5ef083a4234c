"""The tables: names, columns, types, keys. The one place that defines them (shared words: README, glossary).

Every table is a folder of Parquet files; those with `partitioned` are hive-partitioned by `date=YYYY-MM-DD`.
A column is nullable only where `nullable` is set here.
"""

from dataclasses import dataclass

import pyarrow as pa

from crops import perspectives

STAGES = perspectives.STAGES

TS = pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: its schema, what makes a row unique, and whether it lies under `date=` folders.

    `optional` columns may be absent from a folder; readers add them as null.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    partitioned: bool = False
    optional: tuple[str, ...] = ()


def _schema(*columns: tuple[str, pa.DataType], nullable: tuple[str, ...] = ()) -> pa.Schema:
    return pa.schema([pa.field(name, dtype, nullable=name in nullable) for name, dtype in columns])


SEARCHES = Table(
    name="searches",
    schema=_schema(
        ("search_id", pa.string()),
        ("user_id", pa.string()),
        ("ts", TS),
        ("query", pa.string()),
        ("arm", pa.string()),
        nullable=("arm",),
    ),
    key=("search_id",),
    partitioned=True,
    optional=("arm",),
)

RESULTS = Table(
    name="results",
    schema=_schema(
        ("search_id", pa.string()),
        ("video_id", pa.string()),
        ("stage", pa.string()),
        ("position", pa.int32()),
        ("clicked", pa.bool_()),
        ("liked", pa.bool_()),
        ("play_s", pa.float32()),
        ("paths", TEXTS),
        nullable=("position", "play_s", "paths"),
    ),
    key=("search_id", "video_id"),
    partitioned=True,
    optional=("paths",),
)

FEED = Table(
    name="feed",
    schema=_schema(
        ("user_id", pa.string()),
        ("video_id", pa.string()),
        ("ts", TS),
        ("clicked", pa.bool_()),
        ("liked", pa.bool_()),
        ("play_s", pa.float32()),
        nullable=("play_s",),
    ),
    key=("user_id", "video_id", "ts"),
    partitioned=True,
)

VIDEOS = Table(
    name="videos",
    schema=_schema(
        ("video_id", pa.string()),
        ("caption", pa.string()),
        ("keywords", TEXTS),
        ("cover_text", pa.string()),
        ("related_queries", TEXTS),
        ("author_id", pa.string()),
        ("duration_s", pa.float32()),
        ("uploaded_at", TS),
        nullable=("author_id", "duration_s", "uploaded_at"),
    ),
    key=("video_id",),
)

LOGS = (SEARCHES, RESULTS, FEED, VIDEOS)
# Videos and searches first: the others refer to them.
REQUIRED = (VIDEOS, SEARCHES, RESULTS)


def logs() -> tuple[Table, ...]:
    """The tables of a log, those that registered perspectives bring among them; what is not REQUIRED may be
    missing.
    """
    return (*REQUIRED, FEED, *(p.log for p in perspectives.every() if p.log))


CANDIDATES = Table(
    name="candidates",
    schema=_schema(
        ("query", pa.string()),
        ("video_id", pa.string()),
        ("perspective", pa.string()),
        ("later_query", pa.string()),
        ("first_ts", TS),
        ("support", pa.int64()),
        nullable=("later_query",),
    ),
    key=("query", "video_id", "perspective", "later_query"),
)

DOCUMENTS = Table(
    name="documents", schema=_schema(("doc_id", pa.string()), ("text", pa.string())), key=("doc_id",)
)

_PAIR = (("query", pa.string()), ("video_id", pa.string()))
TEST_CT = Table(name="test_ct", schema=_schema(*_PAIR), key=("query", "video_id"))
TEST_QR = Table(
    name="test_qr",
    schema=_schema(*_PAIR, ("later_query", pa.string())),
    key=("query", "video_id", "later_query"),
)
VALID_QR = Table(
    name="valid_qr",
    schema=_schema(*_PAIR, ("later_query", pa.string())),
    key=("query", "video_id", "later_query"),
)

# Every distinct query of the training days and of the held-out days, with how often it was searched and
# clicked: what head, tail, unseen and no-click mean in the evaluation.
QUERIES = Table(
    name="queries",
    schema=_schema(
        ("query", pa.string()), ("split", pa.string()), ("searches", pa.int64()), ("clicks", pa.int64())
    ),
    key=("query", "split"),
)
SPLITS = ("train", "test")

KNOWLEDGE = Table(
    name="knowledge",
    schema=_schema(
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("text", pa.string()),
        ("exemplar_id", pa.string()),
        ("model", pa.string()),
    ),
    key=("query", "doc_id"),
)

# θ of distinct pairs, one folder per perspective: what the scoring tasks of a pipeline hand to
# `discriminate`.
SCORES = Table(
    name="scores",
    schema=_schema(("query", pa.string()), ("doc_id", pa.string()), ("theta", pa.float32())),
    key=("query", "doc_id"),
)

SCORED = Table(
    name="scored",
    schema=_schema(
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("perspective", pa.string()),
        ("later_query", pa.string()),
        ("first_ts", TS),
        ("support", pa.int64()),
        ("theta", pa.float32()),
        ("kept", pa.bool_()),
        nullable=("later_query", "first_ts", "theta"),
    ),
    key=("query", "doc_id", "perspective", "later_query"),
)

SAMPLES = Table(
    name="samples",
    schema=_schema(
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("perspective", pa.string()),
        ("label", pa.int8()),
        ("theta", pa.float32()),
        nullable=("theta",),
    ),
    key=("query", "doc_id"),
)

# Every perspective that a sample came from, beside `samples`: which pairs the systems `clicks` and
# `crops_no_knowledge` may see, and what a release shows as its training pairs.
ORIGINS = Table(
    name="origins",
    schema=_schema(("query", pa.string()), ("doc_id", pa.string()), ("perspective", pa.string())),
    key=("query", "doc_id", "perspective"),
)

# What an experiment's readout keeps per user and day, so that days add up to the period: `arm` null is the
# time before the experiment; `band` says how often the query was searched; `settled` are searches whose
# window has ended within the log.
BANDS = ("head", "torso", "tail")
COUNTS = ("searches", "settled", "reformulated", "impressions", "clicks", "long_plays")
USER_DAYS = Table(
    name="user_days",
    schema=_schema(
        ("date", pa.string()),
        ("user_id", pa.string()),
        ("arm", pa.string()),
        ("band", pa.string()),
        *((name, pa.int64()) for name in COUNTS),
        nullable=("arm",),
    ),
    key=("date", "user_id", "arm", "band"),
)

# Items per recall path: how many of those that were ranked, and of those that were shown, it brought. `path`
# null: all items whose paths are known.
PATH_DAYS = Table(
    name="path_days",
    schema=_schema(
        ("date", pa.string()),
        ("arm", pa.string()),
        ("path", pa.string()),
        ("ranked", pa.int64()),
        ("shown", pa.int64()),
        nullable=("path",),
    ),
    key=("date", "arm", "path"),
)

# Written by the world or read back from judgements; training never reads it.
RELEVANCE = Table(
    name="relevance",
    schema=_schema(("query", pa.string()), ("video_id", pa.string()), ("grade", pa.int8())),
    key=("query", "video_id"),
)
RELEVANT_GRADE = 2
