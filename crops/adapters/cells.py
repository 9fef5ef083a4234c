"""What a cell of a CSV or Parquet file says: SQL from its text to the value of our column, null where it is
none.
"""

import pyarrow as pa

from crops.adapters import release
from crops.adapters.columns import DOTTED, FORMS, UNITS

# How exports write that there is no number, flag or time.
NOTHING = "('nan', 'nat', 'null', 'none', 'na', 'n/a', '<na>')"
# And that there is no id, where it may be text: one id of all who have none would make them one user.
NO_ID = "('nan', 'nat', 'null', 'none', '<na>')"
# A number that a spreadsheet or a float has written shorter than it was: 1.23457E+12 is many ids.
SHORTENED = r"^-?[0-9](\.[0-9]+[eE]\+?|[eE]\+)[0-9]+$"
YES = ("true", "t", "yes", "y", "ja", "j", "oui", "sí", "si", "да", "是", "はい", "예")
NO = ("false", "f", "no", "n", "nein", "non", "нет", "否", "いいえ", "아니요")
# How a time of the day may follow a date.
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")


def value(field: pa.Field, text: str, unit: str | None) -> str:
    """The column's value of a cell's text; null where it is none."""
    if pa.types.is_timestamp(field.type):
        return time_us(text, unit)
    number = f"try_cast({text} AS DOUBLE)"
    if pa.types.is_boolean(field.type):
        cases = " ".join(
            f"WHEN lower({text}) IN ({', '.join(map(release.text, words))}) THEN {flag}"
            for flag, words in ((True, YES), (False, NO))
        )
        return f"CASE {cases} WHEN {number} >= 0 THEN {number} > 0 END"
    if pa.types.is_floating(field.type):
        return f"try_cast({number} * {UNITS[unit or 's']} AS FLOAT)"
    if pa.types.is_integer(field.type):
        return f"CASE WHEN {number} = floor({number}) THEN try_cast({number} AS INTEGER) END"
    if not field.name.endswith("_id"):
        return text
    # Whole numbers with a gap become floats in pandas, and decimals have a scale: 12.0 and 12.00 here are the
    # 12 of another file.
    whole = f"regexp_replace({text}, '^(-?[0-9]+)\\.0+$', '\\1')"
    return f"CASE WHEN NOT regexp_matches({text}, '{SHORTENED}') THEN {whole} END"


def time_us(text: str, unit: str | None) -> str:
    """Microseconds since 1970."""
    number = f"try_cast({text} AS DOUBLE)"
    us = (
        release.epoch_us(text)
        if unit is None
        else f"try_cast({number} * {UNITS.get(unit, 1)} * 1e6 AS BIGINT)"
    )
    written = f"coalesce({_iso_us(text)}, {_calendar_us(text, unit)})"
    return f"CASE WHEN {number} IS NULL THEN {written} ELSE {us} END"


def kind(text: str, unit: str | None) -> str:
    """In which form a time stands there."""
    number = f"try_cast({text} AS DOUBLE)"
    named = release.epoch_unit(text) if unit is None else release.text(unit)
    written = (
        f"CASE WHEN {_iso_us(text)} IS NULL THEN {release.text(FORMS[_form(unit)])} ELSE 'ISO 8601 text' END"
    )
    return f"CASE WHEN {number} IS NULL THEN {written} ELSE {named} END"


def _iso_us(text: str) -> str:
    return f"epoch_us(try_cast({text} AS TIMESTAMPTZ))"


def _form(unit: str | None) -> str:
    return unit if unit in FORMS else DOTTED


def _calendar_us(text: str, unit: str | None) -> str:
    """Of 01.03.2026 16:10, and with a form that was said of 03/01/2026 4:10 PM; slashes alone say nothing."""
    form = _form(unit)
    between = r"\." if form == DOTTED else "[./-]"
    day = "%m/%d/%Y" if form == "mdy" else "%d/%m/%Y"
    formats = ", ".join(release.text(f"{day}{clock}") for clock in CLOCKS)
    same = rf"regexp_replace({text}, '^(\d{{1,2}}){between}(\d{{1,2}}){between}(\d{{4}})\b', '\1/\2/\3')"
    parsed = f"CASE WHEN regexp_matches({text}, '^\\d{{1,2}}{between}') THEN {same} END"
    return f"epoch_us(try_strptime({parsed}, [{formats}]))"


def listed(cell: str, kind: str) -> str:
    """A list as it is; a text is cut at commas, semicolons and bars, without the brackets and quotes of a
    list that was written as text: ['a', 'b'].
    """
    if kind.endswith("[]"):
        return f"coalesce(CAST({cell} AS VARCHAR[]), [])"
    text = f"CAST({cell} AS VARCHAR)"
    inside = f"regexp_replace({text}, '^\\s*[\\[{{](.*)[\\]}}]\\s*$', '\\1', 's')"
    bare = "regexp_replace(trim(x), '^[''\"](.*)[''\"]$', '\\1', 's')"
    cut = f"string_split_regex({inside}, '[,;|]')"
    bracketed = f"{inside} <> {text}"
    cut = f"list_transform({cut}, lambda x: CASE WHEN {bracketed} THEN {bare} ELSE x END)"
    return f"coalesce(list_filter(list_transform({cut}, lambda x: trim(x)), lambda x: x <> ''), [])"


def expected(name: str) -> str:
    """What the column `name` can hold, in words."""
    time = (
        "time (ISO 8601, day.month.year, or seconds, ms, us or ns since 1970; of 03/01/2026 say which it is: "
        "COLUMN:mdy or COLUMN:dmy)"
    )
    flag = "true or false, 1 or 0, yes or no, or a count"
    if name.endswith("_id"):
        return "whole id (1.23E+12 has lost digits: write ids as text)"
    return {"ts": time, "uploaded_at": time, "clicked": flag, "liked": flag, "position": "whole number"}.get(
        name, "number"
    )
