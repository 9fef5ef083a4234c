"""Runs the platform day by day and writes its logs; memory holds one day."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy import ndarray
from numpy.random import Generator, default_rng

from crops import progress
from crops.errors import InputError
from crops.tables import records
from crops.world import catalogue, feed, lexicon, users
from crops.world import language as wordings
from crops.world.chinese import CHINESE
from crops.world.engine import PATHS, Engine
from crops.world.settings import FIRST_DAY, SCALES, Scale, Settings

SECOND_US = 1_000_000
DAY_S = 86_400
TONGUES = {"en": lexicon.ENGLISH, "zh": CHINESE}
# Independent streams of random numbers, so that a change in one part does not shift the others.
MAKE, DAY, FEED, ENGINE = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class World:
    """What exists before anybody searches: the same seed makes the same world."""

    scale: Scale
    settings: Settings
    seed: int
    incumbent: str
    language: str
    videos: catalogue.Catalogue
    queries: wordings.Queries
    popularity: ndarray  # of intents [I], sums to 1
    interests: ndarray  # topics a user likes, int [U, n]


def make(
    scale_name: str,
    *,
    seed: int,
    incumbent: str = "paths",
    videos_per_intent: int | None = None,
    language: str = "en",
) -> World:
    """Builds the world of one scale, seed and language (a key of TONGUES)."""
    tongue = TONGUES[language]
    scale, settings = SCALES[scale_name], Settings()
    if videos_per_intent is not None:
        scale = replace(scale, videos_per_intent=videos_per_intent)
    rng = default_rng([seed, MAKE])
    intents = catalogue.choose_intents(lexicon.load(tongue), scale.intents, rng)
    videos = catalogue.make(intents, scale, settings, rng, tongue)
    queries = wordings.make(intents, settings, rng, tongue)
    weights = (np.arange(len(intents)) + 5.0) ** -settings.intent_zipf
    popularity = rng.permutation(weights / weights.sum())
    topics = np.array(sorted({x.topic for x in intents}))
    interests = topics[rng.integers(0, len(topics), (scale.users, settings.interests_per_user))]
    return World(scale, settings, seed, incumbent, language, videos, queries, popularity, interests)


def load(world_json: Path) -> World:
    """Rebuilds the world that `write` described in world.json."""
    try:
        made = json.loads(Path(world_json).read_text(encoding="utf-8"))
        options = {name: made[name] for name in ("seed", "incumbent", "videos_per_intent")}
        # Worlds of before there were other languages do not say theirs.
        world = make(made["scale"], **options, language=made.get("language", "en"))
        settings = made["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(world_json, "not the world.json of a folder that `crops world` wrote") from error
    if settings != json.loads(json.dumps(asdict(world.settings))):
        raise InputError(
            world_json, "written with other settings than this version has; write the world again"
        )
    return world


def write(
    out: Path,
    *,
    scale: str,
    seed: int,
    incumbent: str = "paths",
    videos_per_intent: int | None = None,
    language: str = "en",
) -> dict[str, float | int]:
    """Writes searches, results, feed, videos, truth/relevance and world.json into `out`; returns what the log
    looks like.
    """
    options: dict[str, Any] = {"seed": seed, "incumbent": incumbent, "videos_per_intent": videos_per_intent}
    if language != "en":
        options["language"] = language
    world = make(scale, **options)
    engine, typed, tally = begin(world, out), np.zeros(len(world.queries.texts), bool), Counter[str]()
    for number in progress.bar(range(world.scale.days), desc="world", unit="day"):
        typed[day(world, engine, number, tally, out)["text"]] = True
    _save(out / "truth", records.RELEVANCE, truth(world, typed))
    numbers = _numbers(world, tally, int(typed.sum()))
    description = {"scale": scale, **options, "settings": asdict(world.settings), "numbers": numbers}
    text = json.dumps(description, indent=2, sort_keys=True)
    (out / "world.json").write_text(text + "\n", encoding="utf-8")
    return numbers


def begin(world: World, out: Path, kind: type[Engine] = Engine) -> Engine:
    """Writes the catalogue into `out`; returns the world's incumbent, of that kind, before its first day."""
    _save(out, records.VIDEOS, world.videos.columns())
    chance = default_rng([world.seed, ENGINE])
    return kind(world.videos, world.queries.texts, world.incumbent, world.settings, chance)


def day(world: World, engine: Engine, number: int, tally: Counter, out: Path) -> dict[str, ndarray]:
    """Lives day `number` (from 0) with that engine, which learns from it, and adds it to the tables of `out`.

    Returns its searches: `user`, `intent`, `text` int [N], `videos` int [N, pool] best first, of which the
    first `settings.exposed` were shown, `clicked` bool of the same shape. tally: counts of what people did.
    """
    searches = _search_day(world, engine, number, tally)
    _write_day(out, world, engine, feed.Shelves(world.videos), number, searches)
    return searches


def _numbers(world: World, tally: Counter, distinct: int) -> dict[str, float | int]:
    """For the screen and world.json: whether people behave as the public figures say."""

    def ratio(part: str, whole: str, digits: int = 4) -> float:
        return round(tally[part] / max(1, tally[whole]), digits)

    return {
        "searches": tally["searches"],
        "distinct_queries": distinct,
        "videos": len(world.videos.intent),
        "intents": len(world.videos.intents),
        "ctr_ratio": ratio("clicks", "shown"),
        "searches_per_session": ratio("searches", "sessions", 3),
        "sessions_with_click_ratio": ratio("sessions_clicked", "sessions"),
        "rephrased_ratio": ratio("rephrased", "searches"),
        "gaps_within_90_s_ratio": ratio("gaps_within_90_s", "gaps"),
    }


def _search_day(world: World, engine: Engine, number: int, tally: Counter) -> dict[str, ndarray]:
    """All searches of one day, round after round, then the engine's nightly learning. Arrays are [N] or [N,
    pool].
    """
    rng = default_rng([world.seed, DAY, number])
    settings = world.settings
    sessions = int(world.scale.searches / world.scale.days / settings.searches_per_session)
    activity = (np.arange(world.scale.users) + settings.activity_offset) ** -settings.activity_exponent
    user = rng.choice(world.scale.users, sessions, p=activity / activity.sum())
    intent = rng.choice(len(world.popularity), sessions, p=world.popularity)
    shares, middles, spreads = (np.array(x) for x in zip(*settings.humps, strict=True))
    hump = rng.choice(len(shares), sessions, p=shares)
    hour = rng.normal(middles[hump], spreads[hump]) % 24
    ts_s = np.floor(hour * 3600)
    text = world.queries.draw(intent, rng)
    session, had_click = np.arange(sessions), np.zeros(sessions, dtype=bool)
    rounds = []
    for round_number in range(settings.max_rounds):
        searches = _react(world, engine, user, intent, ts_s, text, rng)
        searches["first"] = np.full(len(user), round_number == 0)
        rounds.append(searches)
        step = users.decide(searches.pop("satisfied"), settings, rng)
        gap_s = users.gaps_s(len(step), settings, rng)
        later_s = np.floor(ts_s + gap_s)
        goes_on = (step != users.LEAVE) & (later_s < DAY_S - 1) & (round_number + 1 < settings.max_rounds)
        shown = searches["clicked"][:, : settings.exposed]
        had_click[session] |= shown.any(axis=1)
        tally.update(
            searches=len(shown),
            shown=shown.size,
            clicks=int(shown.sum()),
            rephrased=int((goes_on & (step == users.REPHRASE)).sum()),
            gaps=int(goes_on.sum()),
            gaps_within_90_s=int((gap_s[goes_on] <= 90).sum()),
        )
        if not goes_on.any():
            break
        new_need = step[goes_on] == users.NEW_NEED
        fresh = rng.choice(len(world.popularity), int(goes_on.sum()), p=world.popularity)
        intent = np.where(new_need, fresh, intent[goes_on])
        text = world.queries.draw(intent, rng, avoid=np.where(new_need, -1, text[goes_on]))
        user, ts_s, session = user[goes_on], later_s[goes_on], session[goes_on]
    tally.update(sessions=sessions, sessions_clicked=int(had_click.sum()))
    day = {key: np.concatenate([r[key] for r in rounds]) for key in rounds[0]}
    order = np.lexsort((day["text"], day["user"], day["ts_s"]))
    day = {key: values[order] for key, values in day.items()}
    row, column = np.nonzero(day["clicked"])
    engine.learn(day["text"][row], day["videos"][row, column])
    return day


def _react(
    world: World, engine: Engine, user: ndarray, intent: ndarray, ts_s: ndarray, text: ndarray, rng: Generator
) -> dict[str, ndarray]:
    videos, paths = engine.search(text)
    shown = videos[:, : world.settings.exposed]
    reaction = users.react(
        world.videos.grades(intent, shown), world.videos.duration_s[shown], world.settings, rng
    )
    rest = ((0, 0), (0, videos.shape[1] - shown.shape[1]))
    return {
        "user": user,
        "intent": intent,
        "ts_s": ts_s,
        "text": text,
        "videos": videos,
        "paths": paths,
        "clicked": np.pad(reaction.clicked, rest),
        "liked": np.pad(reaction.liked, rest),
        "play_s": np.pad(reaction.play_s, rest, constant_values=np.nan),
        "satisfied": reaction.satisfied,
    }


def truth(world: World, typed: ndarray) -> dict[str, list]:
    """Grades of the queries in the log: the best grade over what a fair share (Settings.meaning_share) of
    those who type the query mean by it.
    """
    rows: list[tuple[str, str, int]] = []
    ids, (start, order) = world.videos.ids, feed.Shelves(world.videos).by_subject
    for text, meant in sorted(world.queries.intent_share(world.popularity).items()):
        if not typed[text]:
            continue
        best: dict[int, int] = {}
        for intent in (i for i, share in meant.items() if share >= world.settings.meaning_share):
            subject = world.videos.subject_of_intent[intent]
            videos = order[start[subject] : start[subject + 1]]
            grades = world.videos.grades(np.array([intent]), videos[None, :])[0]
            for video, grade in zip(videos.tolist(), grades.tolist(), strict=True):
                best[video] = max(best.get(video, 0), grade)
        rows += [(world.queries.texts[text], ids[video], best[video]) for video in sorted(best)]
    return {name: [row[n] for row in rows] for n, name in enumerate(records.RELEVANCE.schema.names)}


def _write_day(
    out: Path, world: World, engine: Engine, shelves: feed.Shelves, number: int, day: dict[str, ndarray]
) -> None:
    midnight = np.datetime64(FIRST_DAY) + number
    day_us = int(midnight.astype("datetime64[us]").astype(np.int64))
    search_ids = pa.array([f"s{number:02d}-{i:07d}" for i in range(len(day["user"]))])
    ts_us = day_us + (day["ts_s"] * SECOND_US).astype(np.int64)
    searches = {
        "search_id": search_ids,
        "user_id": _names(day["user"]),
        "ts": ts_us,
        "query": pa.array(world.queries.texts).take(pa.array(day["text"])),
        "arm": pa.nulls(len(ts_us)),
    }
    first = day["first"]
    sessions = (day["user"][first], day["intent"][first], ts_us[first])
    rng = default_rng([world.seed, FEED, number])
    views = feed.day(
        world.videos, shelves, world.interests, sessions, engine.popularity, day_us, world.settings, rng
    )
    watched = {
        "user_id": _names(views.user),
        "video_id": pa.array(world.videos.ids).take(pa.array(views.video)),
        "ts": views.ts_us,
        "clicked": views.clicked,
        "liked": views.liked,
        "play_s": views.play_s.astype(np.float32),
    }
    for table, columns in (
        (records.SEARCHES, searches),
        (records.RESULTS, _results(world, day, search_ids)),
        (records.FEED, watched),
    ):
        _save(out, table, columns, f"date={midnight}")


def _results(world: World, day: dict[str, ndarray], search_ids: pa.Array) -> dict[str, object]:
    settings, count, pool = world.settings, *day["videos"].shape
    stage = np.repeat(np.arange(3), (settings.exposed, settings.ranked, settings.filtered))
    position = np.tile(np.arange(pool), count)
    names = pa.array(
        [[p for bit, p in enumerate(PATHS) if mask & (1 << bit)] for mask in range(8)], records.TEXTS
    )
    play_s = day["play_s"].ravel().astype(np.float32)
    return {
        "search_id": search_ids.take(pa.array(np.repeat(np.arange(count), pool))),
        "video_id": pa.array(world.videos.ids).take(pa.array(day["videos"].ravel())),
        "stage": pa.array(records.STAGES).take(pa.array(np.tile(stage, count))),
        "position": pa.array(position, pa.int32(), mask=position >= settings.exposed),
        "clicked": day["clicked"].ravel(),
        "liked": day["liked"].ravel(),
        "play_s": pa.array(play_s, mask=np.isnan(play_s)),
        "paths": names.take(pa.array(day["paths"].ravel())),
    }


def _names(people: ndarray) -> pa.Array:
    return pa.array([f"u{n:06d}" for n in people.tolist()])


def _save(folder: Path, table: records.Table, columns: dict[str, Any], partition: str = "") -> None:
    path = folder / table.name / partition / "part-0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = pa.table(columns, schema=table.schema)
    pq.write_table(rows, path, compression="zstd", row_group_size=250_000)
