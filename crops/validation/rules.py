"""What makes a row bad, per table and in the order in which it is asked: the first check that fails is the
reason.

Beside the columns of crops.tables.records the checks read helpers that need the whole log (see split.py):

    copy               1 for the first row with a key, 2 for the second ... (in the order of files and rows);
                       null without a whole key
    search, video      accepted, quarantined or missing: what became of the search and the video that the row
                       names
    folder_day         the day of the `date=` folder; null where there is none
    ts_day, search_day the day of ts; the day of the search's ts
    search_ts          when the search was
    earliest_ts        when the video was uploaded, less the clock skew that is tolerated
    interacted         clicked, liked or played
    visible_characters characters of the query that are no white space
    unfit_COLUMN       the text of a value that its column's type does not hold (of columns where there can be
                       one)
    text_fields        how many of caption, keywords, cover_text and related_queries hold any text
"""

from collections.abc import Sequence

from crops import perspectives
from crops.arms import ARMS
from crops.config.validate import ValidateConfig
from crops.tables.records import Table
from crops.validation.checks import (
    Check,
    Where,
    between,
    in_set,
    is_null,
    length_between,
    not_before,
    not_in_set,
    not_null,
    same,
)
from crops.validation.source import unfit

# Outside of these years a time is in another unit (seconds read as microseconds land in 1970), not early or
# late.
FIRST_TS, LAST_TS = "2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"

EXPOSED = Where(column="stage", values=perspectives.STAGES[:1])
NOT_EXPOSED = Where(column="stage", values=perspectives.STAGES[1:])


def checks(table: Table, cfg: ValidateConfig, unsure: Sequence[str] = ()) -> list[Check]:
    """The checks of one table of the log; those of an optional one follow from its columns.

    unsure: the columns in whose files a value may be one that the column's type does not hold; that is asked
    first, because such a value is null from there on.
    """
    checks = {"searches": _searches, "results": _results, "videos": _videos}.get(table.name)
    fitting = [
        is_null(unfit(name), f"{name} does not fit {table.schema.field(name).type}") for name in unsure
    ]
    return [*fitting, *(checks(cfg) if checks else _optional(table, cfg))]


def _searches(cfg: ValidateConfig) -> list[Check]:
    return [
        *map(not_null, ("search_id", "user_id", "ts", "query")),
        # One empty id for all who are not logged in would make their searches reformulations of one another.
        length_between("user_id", "user_id is empty", low=1),
        between("visible_characters", "query is empty", low=1),
        length_between("query", "query is too long", high=cfg.max_query_chars),
        _possible("ts"),
        same("ts_day", "folder_day", "ts is of another day than its partition"),
        in_set("arm", ARMS, "arm is unknown"),
        _once(),
    ]


def _results(cfg: ValidateConfig) -> list[Check]:
    return [
        *map(not_null, ("search_id", "video_id", "stage", "clicked", "liked")),
        in_set("stage", perspectives.STAGES, "stage is unknown"),
        not_null("position", "exposed without a position", where=EXPOSED),
        is_null("position", "position without being exposed", where=NOT_EXPOSED),
        between("position", "position is negative", low=0),
        in_set("interacted", (False,), "clicked, liked or played without being exposed", where=NOT_EXPOSED),
        *_play(cfg),
        *_known("search", "searches"),
        *_known("video", "videos"),
        same("folder_day", "search_day", "lies under another day than its search"),
        not_before("search_ts", "earliest_ts", "search is before the video's upload"),
        _once(),
    ]


def _optional(table: Table, cfg: ValidateConfig) -> list[Check]:
    by_column = {
        "user_id": [length_between("user_id", "user_id is empty", low=1)],
        "play_s": _play(cfg),
        "ts": [_possible("ts"), same("ts_day", "folder_day", "ts is of another day than its partition")],
        "video_id": _known("video", "videos"),
    }
    names = set(table.schema.names)
    upload = not_before("ts", "earliest_ts", "view is before the video's upload")
    return [
        *(not_null(column.name) for column in table.schema if not column.nullable),
        *(check for name, own_checks in by_column.items() if name in names for check in own_checks),
        *([upload] if {"ts", "video_id"} <= names else []),
        _once(),
    ]


def _videos(_cfg: ValidateConfig) -> list[Check]:
    return [
        *map(not_null, ("video_id", "caption", "keywords", "cover_text", "related_queries")),
        # The catalogue's fault, not the log's: nothing can be retrieved by it, and it does not end the run.
        between("text_fields", "no text in any field", low=1, worst="warning"),
        between("duration_s", "duration_s is not positive", low=0, above_low=True),
        _possible("uploaded_at"),
        _once(),
    ]


def _play(cfg: ValidateConfig) -> list[Check]:
    return [
        between("play_s", "play_s is negative or no number", low=0),
        between("play_s", "play_s is too long", high=cfg.max_play_s),
    ]


def _possible(column: str) -> Check:
    return between(column, f"{column} is not between 2000 and 2100", low=FIRST_TS, high=LAST_TS)


def _known(column: str, table: str) -> list[Check]:
    """A row that names a quarantined row goes with it; its cause is counted there, so this end of it is a
    warning.
    """
    return [
        not_in_set(column, ("missing",), f"{column} is not in {table}"),
        not_in_set(column, ("quarantined",), f"{column} is in quarantine", worst="warning"),
    ]


def _once() -> Check:
    return between("copy", "key stands twice", high=1)
