"""What was trained, of what, with which settings, at what cost: as lines to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from crops.config import all as configs

Json = dict[str, Any]


def facts(report: Json, parts: Json) -> list[tuple[str, str]]:
    """(what, value) in the order to read; what is not known is left out, never a zero."""
    days, config = parts["augment"].get("days") or {}, settings(parts["stages"])
    base, seed = ((config.get("train") or {}).get(key) for key in ("base", "seed"))
    told = [
        ("Training days", _span(days.get("train") or [])),
        ("Validation day", _span(days.get("valid") or [])),
        ("Held-out days", _span(days.get("test") or [])),
        ("Log", _log(parts.get("validate") or {})),
        ("Base", str(base) if base else ""),
        ("Seed", "" if seed is None else str(seed)),
        ("Cost", _cost(report, parts)),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions(parts["stages"]).items())),
    ]
    return [(what, value) for what, value in told if value]


def _span(days: Sequence[str]) -> str:
    if not days:
        return ""
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} days)"


def _log(checked: Json) -> str:
    tables = checked.get("tables") or {}
    words = {"feed": "entries of the feed"}
    counted = [
        (tables[name]["accepted"], name)
        for name in ("searches", "results", "feed", "videos")
        if name in tables
    ]
    users = ((tables.get("searches") or {}).get("shape") or {}).get("users")
    if users is not None:
        counted.insert(1, (users, "users"))
    return ", ".join(f"{number:,} {words.get(name, name)}" for number, name in counted)


def _cost(report: Json, parts: Json) -> str:
    encoded = sum(train.get("encodes") or 0 for train in parts["train"].values())
    costs = [f"{sum(report['seconds'].values()):,.0f} s in all stages together"]
    if encoded:
        costs.append(f"{encoded:,} texts encoded in training")
    if parts["knowledge"].get("asked"):
        costs.append(f"{parts['knowledge']['tokens']:,} tokens of the LLM")
    if stored := parts["knowledge"].get("from_store"):
        costs.append(f"{stored:,} of its answers from the store, where earlier runs had put them")
    return ", ".join(costs)


def versions(stages: Sequence[Json]) -> dict[str, str]:
    """Package to version, as the stages found them; two of one package are named both."""
    settings: dict[str, list[str]] = {}
    for entry in stages:
        for name, number in (entry.get("versions") or {}).items():
            if number not in settings.setdefault(name, []):
                settings[name].append(number)
    return {name: " and ".join(numbers) for name, numbers in settings.items()}


def settings(stages: Sequence[Json]) -> dict[str, Json]:
    """Section to what its stage was given; `train clicks` and `train crops` share one."""
    sections = {"theta": "discriminate", "champion": "register", "baseline": "register"}
    facts: dict[str, Json] = {}
    for entry in stages:
        name = entry["stage"].split()[0]
        section = sections.get(name, name)
        if entry.get("config") and section in configs.PIPELINE:
            facts.setdefault(section, entry["config"])
    return {section: facts[section] for section in configs.PIPELINE if section in facts}


def changed(sections: Mapping[str, Json]) -> list[tuple[str, Any, Any]]:
    """(section.key, value, default) of every setting that is not the default's."""
    rows = []
    for section, values in sections.items():
        default = configs.section_class(section)().model_dump(mode="json")
        rows += [
            (f"{section}.{key}", value, default.get(key))
            for key, value in values.items()
            if value != default.get(key)
        ]
    return rows
