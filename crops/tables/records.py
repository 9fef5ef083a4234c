"""The tables: names, columns, types, keys. The one place that defines them (shared words: README, glossary).

Every table is a folder of Parquet files; those with `partitioned` are hive-partitioned by `date=YYYY-MM-DD`.
A column is nullable only if a ? says so here.
"""

from dataclasses import dataclass

import pyarrow as pa

from crops import perspectives

STAGES = perspectives.STAGES

TS = pa.timestamp("us", tz="UTC")
TEXTS = pa.list_(pa.string())
TYPES = {"timestamp": TS, "list<string>": TEXTS, "bool": pa.bool_()}


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


def table(
    name: str, columns: str, *, key: str, partitioned: bool = False, optional: tuple[str, ...] = ()
) -> Table:
    """A table as one writes it down: "name type" of each column, with a ? if it may be null; `key` names
    columns.
    """
    fields = []
    for column in columns.split(","):
        title, kind = column.split()
        dtype = TYPES.get(kind.rstrip("?")) or pa.type_for_alias(kind.rstrip("?"))
        fields.append(pa.field(title, dtype, nullable=kind.endswith("?")))
    return Table(
        name=name,
        schema=pa.schema(fields),
        key=tuple(key.split()),
        partitioned=partitioned,
        optional=optional,
    )


SEARCHES = table(
    "searches",
    "search_id string, user_id string, ts timestamp, query string, arm string?",
    key="search_id",
    partitioned=True,
    optional=("arm",),
)

RESULTS = table(
    "results",
    """
    search_id string, video_id string, stage string, position int32?, clicked bool, liked bool,
    play_s float32?, paths list<string>?
    """,
    key="search_id video_id",
    partitioned=True,
    optional=("paths",),
)

FEED = table(
    "feed",
    "user_id string, video_id string, ts timestamp, clicked bool, liked bool, play_s float32?",
    key="user_id video_id ts",
    partitioned=True,
)

VIDEOS = table(
    "videos",
    """
    video_id string, caption string, keywords list<string>, cover_text string,
    related_queries list<string>, author_id string?, duration_s float32?, uploaded_at timestamp?
    """,
    key="video_id",
)

LOGS = (SEARCHES, RESULTS, FEED, VIDEOS)
# Videos and searches first: the others refer to them.
REQUIRED = (VIDEOS, SEARCHES, RESULTS)


def logs() -> tuple[Table, ...]:
    """The tables of a log, those that registered perspectives bring among them; what is not REQUIRED may be
    missing.
    """
    return (*REQUIRED, FEED, *(p.log for p in perspectives.every() if p.log))


CANDIDATES = table(
    "candidates",
    """
    query string, video_id string, perspective string, later_query string?, first_ts timestamp,
    support int64
    """,
    key="query video_id perspective later_query",
)

# What the log says of a pair beside that it was chosen; written where the setting augment.evidence says so.
EVIDENCE = table(
    "evidence",
    """
    query string, video_id string, shown int64, examined double, clicked int64, watched double?,
    last_ts timestamp
    """,
    key="query video_id",
)

DOCUMENTS = table("documents", "doc_id string, text string", key="doc_id")

TEST_CT = table("test_ct", "query string, video_id string", key="query video_id")
TEST_QR = table(
    "test_qr", "query string, video_id string, later_query string", key="query video_id later_query"
)
VALID_QR = table(
    "valid_qr", "query string, video_id string, later_query string", key="query video_id later_query"
)

# Every distinct query of the training days and of the held-out days, with how often it was searched and
# clicked, and by how many users: what head, tail, unseen and no-click mean in the evaluation.
QUERIES = table(
    "queries", "query string, split string, searches int64, clicks int64, users int64", key="query split"
)

KNOWLEDGE = table(
    "knowledge",
    "query string, doc_id string, text string, exemplar_id string, model string",
    key="query doc_id",
)

# θ of distinct gated pairs by their texts, and the cosine to the nearest other video clicked for the query,
# one folder per shard: what the scoring tasks of a pipeline hand to `discriminate`.
SCORES = table("scores", "query string, doc_id string, theta float32, nearest float32?", key="query doc_id")

SCORED = table(
    "scored",
    """
    query string, doc_id string, perspective string, later_query string?, first_ts timestamp?,
    support int64, theta float32?, kept bool
    """,
    key="query doc_id perspective later_query",
)

SAMPLES = table(
    "samples",
    "query string, doc_id string, perspective string, label int8, theta float32?",
    key="query doc_id",
)

# Every perspective that a sample came from, beside `samples`: which pairs the systems `clicks` and
# `crops_no_knowledge` may see, and what a release shows as its training pairs.
ORIGINS = table("origins", "query string, doc_id string, perspective string", key="query doc_id perspective")

# What the discriminator did not keep, beside `samples`: no positive, and no negative either.
DROPPED = table("dropped", "query string, doc_id string, perspective string", key="query doc_id perspective")

# What an experiment's readout keeps per user and day, so that days add up to the period: `arm` null is the
# time before the experiment; `band` says how often the query was searched; `settled` are searches whose
# window has ended within the log.
BANDS = ("head", "torso", "tail")
COUNTS = ("searches", "settled", "reformulated", "impressions", "clicks", "long_plays")
USER_DAYS = table(
    "user_days",
    f"date string, user_id string, arm string?, band string, {' int64, '.join(COUNTS)} int64",
    key="date user_id arm band",
)

# Items per recall path: how many of those that were ranked, and of those that were shown, it brought. `path`
# null: all items whose paths are known.
PATH_DAYS = table(
    "path_days", "date string, arm string, path string?, ranked int64, shown int64", key="date arm path"
)

# Written by the world or read back from judgements; training never reads it.
# The first results of all systems for the held-out queries, and what was consumed after a reformulation: of
# these people are asked. rank: the best one that a system gave it, from 1; 0: consumed, whatever its rank.
POOL = table("pool", "query string, video_id string, rank int32", key="query video_id")

# The first results of each system for every test query, best first from 1; sets: the test sets for which the
# result counts. The report shows them side by side.
TOPS = table(
    "tops",
    "system string, query string, rank int32, doc_id string, sets list<string>",
    key="system query rank",
)

RELEVANCE = table("relevance", "query string, video_id string, grade int8", key="query video_id")
RELEVANT_GRADE = 2
