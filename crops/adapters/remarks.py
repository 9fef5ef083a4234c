"""What an import of a search log has to say of what it read, once all of it is read."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crops.adapters import delimited
from crops.adapters.release import Remark, text
from crops.errors import InputError

Say = Callable[[list[tuple[Any, ...]]], list[str]]
# Outside of these a time is in another unit, not early or late: the years that validate accepts.
FIRST_DAY, LAST_DAY = "2000-01-01", "2100-01-01"
# Rows per search below which each row is likely a search of its own by mistake.
LEAST_ROWS_PER_SEARCH = 1.1
# More lines that do not fit than this share: it is not the lines that are wrong but how they are cut.
MOST_BROKEN = 0.05
# Rows that say something of a result.
ROWS = "(SELECT count(*) FROM in_results WHERE video_id IS NOT NULL)"


def rows_per_search(by_id: bool, own_results: bool) -> tuple[Remark, ...]:
    """Where a row has a time of its own, no two rows are of one search."""
    if by_id or own_results:
        return ()

    def say(answers: list[tuple[Any, ...]]) -> list[str]:
        rows, searches, users = answers[0]
        if rows < LEAST_ROWS_PER_SEARCH * searches and searches > users:
            return [
                f"searches: {searches:,} from {rows:,} rows; if a row has a time of its own rather than its "
                "search's, map the id of the search: --map search=COLUMN"
            ]
        return []

    counts = f"SELECT {ROWS}, count(*), count(DISTINCT user_id) FROM found"
    return (Remark(counts, say),)


def _merged(answers: list[tuple[Any, ...]]) -> list[str]:
    rows, results = answers[0]
    words = f"results: {results:,} from {rows:,} rows; those of one search, video and stage are one, clicked "
    return [words + "if one of them was"] if results < rows else []


# The same video twice in one search: clicked twice, or shown twice.
MERGED_ROWS = Remark(f"SELECT {ROWS}, (SELECT count(*) FROM listed)", _merged)


def broken_lines(path: Path, files: Iterable[Path], table: str) -> Remark:
    """Lines of `files` that were left out, beside those that `table` has; an InputError where they are many,
    or where the text is in another encoding.
    """

    def say(answers: list[tuple[Any, ...]]) -> list[str]:
        broken, read, foreign, file, line, content, why = answers[0]
        if foreign is not None:
            raise InputError(path, f"cannot be read{delimited.hint(path, 'not utf-8')}", row=foreign)
        if not broken:
            return []
        first = f"line {line} of {Path(file).name}: {why.lower()}, {content.strip()[:80]!r}"
        if broken > MOST_BROKEN * (broken + read):
            problem = f"{broken:,} of {broken + read:,} lines do not have the fields of the header, {first}"
            raise InputError(path, f"{problem}; is a text with the separator in it not quoted?")
        return [f"{path.name}: {broken:,} of {broken + read:,} lines left out ({first})"]

    listed = ", ".join(text(file) for file in files)
    lines = (
        f"(SELECT DISTINCT ON (file_path, line) * FROM {delimited.BROKEN} JOIN {delimited.SCANS} "
        f"USING (scan_id, file_id) WHERE file_path IN ({listed}))"
    )
    counts = (
        f"SELECT count(*), (SELECT count(*) FROM {table}), "
        "min(line) FILTER (WHERE error_type LIKE '%ENCODING'), "
        "arg_min(file_path, (file_path, line)), arg_min(line, (file_path, line)), "
        "arg_min(csv_line, (file_path, line)), "
        f"arg_min(CAST(error_type AS VARCHAR), (file_path, line)) FROM {lines}"
    )
    return Remark(counts, say)


def unreadable(path: Path, column: str, expected: str) -> Say:
    """Of (unreadable, given, first row, its value): how many; an InputError where it is all of them."""

    def say(answers: list[tuple[Any, ...]]) -> list[str]:
        bad, read, row, value = answers[0]
        if not bad:
            return []
        if bad == read:
            problem = f"{column} holds {value!r} and no readable value in {read:,}, expected a {expected}"
            raise InputError(path, problem, row=row)
        return [f"{column}: {bad:,} of {read:,} values are no {expected}: unknown (row {row}: {value!r})"]

    return say


def kinds(path: Path, column: str) -> Say:
    """Of a row per form of a time (form, values, first day, last day): how it was read; an InputError where
    no day can be one of a log.
    """

    def say(answers: list[tuple[Any, ...]]) -> list[str]:
        forms = [f"{kind} ({count:,})" if len(answers) > 1 else str(kind) for kind, count, *_ in answers]
        if not forms:
            return []
        first, last = min(row[2] for row in answers), max(row[3] for row in answers)
        words = f"{column} read as {' and '.join(forms)}: {first} to {last}"
        if last < FIRST_DAY or first > LAST_DAY:  # one of them in there would be a fault of some rows alone
            expected = "expected days since 2000; is it another unit (time=COLUMN:ms), or no time since 1970?"
            raise InputError(path, f"{words}, {expected}")
        return [words]

    return say
