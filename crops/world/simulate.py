"""Runs the platform day by day and writes its logs; memory holds one day."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from crops.errors import InputError
from crops.tables import records
from crops.world import catalogue, feed, language, lexicon, users
from crops.world.engine import PATHS, Engine
from crops.world.settings import FIRST_DAY, SCALES, Scale, Settings

SECOND_US = 1_000_000
DAY_S = 86_400
# Independent streams of random numbers, so that a change in one part does not shift the others.
MAKE, DAY, FEED, ENGINE = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class World:
    """What exists before anybody searches: the same seed makes the same world."""

    scale: Scale
    settings: Settings
    seed: int
    incumbent: str
    videos: catalogue.Catalogue
    queries: language.Queries
    popularity: np.ndarray  # of intents [I], sums to 1
    interests: np.ndarray  # topics a user likes, int [U, n]


def make(
    scale_name: str, *, seed: int, incumbent: str = "paths", videos_per_intent: int | None = None
) -> World:
    """Builds the world of one scale and seed."""
    scale, settings = SCALES[scale_name], Settings()
    if videos_per_intent is not None:
        scale = Scale(**{**asdict(scale), "videos_per_intent": videos_per_intent})
    rng = np.random.default_rng([seed, MAKE])
    intents = catalogue.choose_intents(lexicon.load(), scale.intents, rng)
    videos = catalogue.make(intents, scale, settings, rng)
    queries = language.make(intents, settings, rng)
    wanted = (np.arange(len(intents)) + 5.0) ** -settings.intent_zipf
    popularity = rng.permutation(wanted / wanted.sum())
    topics = np.array(sorted({x.topic for x in intents}))
    interests = topics[rng.integers(0, len(topics), (scale.users, settings.interests_per_user))]
    return World(scale, settings, seed, incumbent, videos, queries, popularity, interests)


def load(world_json: Path) -> World:
    """Rebuilds the world that `write` described in world.json."""
    try:
        made = json.loads(Path(world_json).read_text(encoding="utf-8"))
        world = make(
            made["scale"],
            seed=made["seed"],
            incumbent=made["incumbent"],
            videos_per_intent=made["videos_per_intent"],
        )
        settings = made["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(world_json, "not the world.json of a folder that `crops world` wrote") from error
    if settings != json.loads(json.dumps(asdict(world.settings))):
        raise InputError(
            world_json, "written with other settings than this version has; write the world again"
        )
    return world


def write(
    out: Path, *, scale: str, seed: int, incumbent: str = "paths", videos_per_intent: int | None = None
) -> dict[str, float | int]:
    """Writes searches, results, feed, videos, truth/relevance and world.json into `out`; returns what the log
    looks like.
    """
    world = make(scale, seed=seed, incumbent=incumbent, videos_per_intent=videos_per_intent)
    out.mkdir(parents=True, exist_ok=True)
    _save(out / "videos" / "part-0.parquet", world.videos.table())
    engine = Engine(
        world.videos, world.queries.texts, incumbent, world.settings, np.random.default_rng([seed, ENGINE])
    )
    shelves, tally, seen = feed.Shelves(world.videos), Tally(), np.zeros(len(world.queries.texts), dtype=bool)
    for number in tqdm(range(world.scale.days), desc="world", unit="day", disable=None):
        searches = _search_day(world, engine, number, tally)
        _write_day(out, world, engine, shelves, number, searches)
        seen[searches["text"]] = True
    _save(out / "truth" / "relevance" / "part-0.parquet", truth(world, seen))
    described = {"scale": scale, "seed": seed, "incumbent": incumbent, "videos_per_intent": videos_per_intent}
    numbers = tally.numbers(world, int(seen.sum()))
    text = json.dumps(
        {**described, "settings": asdict(world.settings), "numbers": numbers}, indent=2, sort_keys=True
    )
    (out / "world.json").write_text(text + "\n", encoding="utf-8")
    return numbers


class Tally:
    """Counts that show whether people behave as the public figures say."""

    def __init__(self) -> None:
        self.searches = self.sessions = self.sessions_clicked = self.clicks = self.shown = self.rephrased = 0
        self.gaps_within_90_s = self.gaps = 0

    def add(self, clicked: np.ndarray, rephrased: int, gaps_s: np.ndarray) -> None:
        """One round of searches: `clicked` bool [N, K]."""
        self.searches += len(clicked)
        self.shown += clicked.size
        self.clicks += int(clicked.sum())
        self.rephrased += rephrased
        self.gaps += len(gaps_s)
        self.gaps_within_90_s += int((gaps_s <= 90).sum())

    def add_sessions(self, clicked: np.ndarray) -> None:
        """The day's sessions: bool [S], whether any of their searches got a click."""
        self.sessions += len(clicked)
        self.sessions_clicked += int(clicked.sum())

    def numbers(self, world: World, distinct: int) -> dict[str, float | int]:
        """For the screen and world.json."""
        return {
            "searches": self.searches,
            "distinct_queries": distinct,
            "videos": len(world.videos.intent),
            "intents": len(world.videos.intents),
            "ctr_ratio": round(self.clicks / max(1, self.shown), 4),
            "searches_per_session": round(self.searches / max(1, self.sessions), 3),
            "sessions_with_click_ratio": round(self.sessions_clicked / max(1, self.sessions), 4),
            "rephrased_ratio": round(self.rephrased / max(1, self.searches), 4),
            "gaps_within_90_s_ratio": round(self.gaps_within_90_s / max(1, self.gaps), 4),
        }


def _search_day(world: World, engine: Engine, number: int, tally: Tally) -> dict[str, np.ndarray]:
    """All searches of one day, round after round, then the engine's nightly learning. Arrays are [N] or [N,
    pool].
    """
    rng = np.random.default_rng([world.seed, DAY, number])
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
        found = _react(world, engine, user, intent, ts_s, text, rng)
        found["first"] = np.full(len(user), round_number == 0)
        rounds.append(found)
        step = users.decide(found.pop("satisfied"), settings, rng)
        gap_s = users.gaps_s(len(step), settings, rng)
        later_s = np.floor(ts_s + gap_s)
        goes_on = (step != users.LEAVE) & (later_s < DAY_S - 1) & (round_number + 1 < settings.max_rounds)
        shown = found["clicked"][:, : settings.exposed]
        had_click[session] |= shown.any(axis=1)
        tally.add(shown, int((goes_on & (step == users.REPHRASE)).sum()), gap_s[goes_on])
        if not goes_on.any():
            break
        new_need = step[goes_on] == users.NEW_NEED
        fresh = rng.choice(len(world.popularity), int(goes_on.sum()), p=world.popularity)
        intent = np.where(new_need, fresh, intent[goes_on])
        text = world.queries.draw(intent, rng, avoid=np.where(new_need, -1, text[goes_on]))
        user, ts_s, session = user[goes_on], later_s[goes_on], session[goes_on]
    tally.add_sessions(had_click)
    day = {key: np.concatenate([r[key] for r in rounds]) for key in rounds[0]}
    order = np.lexsort((day["text"], day["user"], day["ts_s"]))
    day = {key: values[order] for key, values in day.items()}
    row, column = np.nonzero(day["clicked"])
    engine.learn(day["text"][row], day["videos"][row, column])
    return day


def _react(
    world: World,
    engine: Engine,
    user: np.ndarray,
    intent: np.ndarray,
    ts_s: np.ndarray,
    text: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
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


def truth(world: World, seen: np.ndarray) -> pa.Table:
    """Grades of the queries in the log: the best grade over what a fair share (Settings.meaning_share) of
    those who type the query mean by it.
    """
    out: dict[str, list] = {"query": [], "video_id": [], "grade": []}
    ids, members = world.videos.ids, feed.Shelves(world.videos).by_subject
    for text, meant in sorted(world.queries.intent_share(world.popularity).items()):
        if not seen[text]:
            continue
        best: dict[int, int] = {}
        for intent in (i for i, share in meant.items() if share >= world.settings.meaning_share):
            start, order = members
            subject = world.videos.subject_of_intent[intent]
            videos = order[start[subject] : start[subject + 1]]
            grades = world.videos.grades(np.array([intent]), videos[None, :])[0]
            for video, grade in zip(videos.tolist(), grades.tolist(), strict=True):
                best[video] = max(best.get(video, 0), grade)
        for video in sorted(best):
            out["query"].append(world.queries.texts[text])
            out["video_id"].append(ids[video])
            out["grade"].append(best[video])
    return pa.table(out, schema=records.RELEVANCE.schema)


def _write_day(
    out: Path, world: World, engine: Engine, shelves: feed.Shelves, number: int, day: dict[str, np.ndarray]
) -> None:
    first_us = int(np.datetime64(FIRST_DAY, "us").astype(np.int64))
    day_us = first_us + number * DAY_S * SECOND_US
    date = str(np.datetime64(day_us, "us").astype("datetime64[D]"))
    search_ids = pa.array([f"s{number:02d}-{i:07d}" for i in range(len(day["user"]))])
    ts_us = day_us + (day["ts_s"] * SECOND_US).astype(np.int64)
    searches = {
        "search_id": search_ids,
        "user_id": _names("u", day["user"]),
        "ts": ts_us,
        "query": pa.array(world.queries.texts).take(pa.array(day["text"])),
        "arm": pa.nulls(len(ts_us), pa.string()),
    }
    _save(out / "searches" / f"date={date}" / "part-0.parquet", _table(records.SEARCHES, searches))
    _save(out / "results" / f"date={date}" / "part-0.parquet", _results(world, day, search_ids))
    first = day["first"]
    sessions = (day["user"][first], day["intent"][first], ts_us[first])
    rng = np.random.default_rng([world.seed, FEED, number])
    views = feed.day(
        world.videos, shelves, world.interests, sessions, engine.popularity, day_us, world.settings, rng
    )
    rows = {
        "user_id": _names("u", views.user),
        "video_id": pa.array(world.videos.ids).take(pa.array(views.video)),
        "ts": views.ts_us,
        "clicked": views.clicked,
        "liked": views.liked,
        "play_s": views.play_s.astype(np.float32),
    }
    _save(out / "feed" / f"date={date}" / "part-0.parquet", _table(records.FEED, rows))


def _results(world: World, day: dict[str, np.ndarray], search_ids: pa.Array) -> pa.Table:
    settings, pool = world.settings, day["videos"].shape[1]
    count = len(search_ids)
    stage = np.repeat(np.arange(3), (settings.exposed, settings.ranked, settings.filtered))
    position = np.where(np.arange(pool) < settings.exposed, np.arange(pool), -1)
    names = pa.array(
        [[p for bit, p in enumerate(PATHS) if mask & (1 << bit)] for mask in range(8)], records.TEXTS
    )
    play_s = day["play_s"].ravel().astype(np.float32)
    flat_position = np.tile(position, count)
    rows = {
        "search_id": search_ids.take(pa.array(np.repeat(np.arange(count), pool))),
        "video_id": pa.array(world.videos.ids).take(pa.array(day["videos"].ravel())),
        "stage": pa.array(records.STAGES).take(pa.array(np.tile(stage, count))),
        "position": pa.array(flat_position, pa.int32(), mask=flat_position < 0),
        "clicked": day["clicked"].ravel(),
        "liked": day["liked"].ravel(),
        "play_s": pa.array(play_s, mask=np.isnan(play_s)),
        "paths": names.take(pa.array(day["paths"].ravel())),
    }
    return _table(records.RESULTS, rows)


def _names(letter: str, numbers: np.ndarray) -> pa.Array:
    return pa.array([f"{letter}{n:06d}" for n in numbers.tolist()])


def _table(table: records.Table, columns: dict[str, object]) -> pa.Table:
    def cast(column: object, dtype: pa.DataType) -> pa.Array:
        return column.cast(dtype) if isinstance(column, pa.Array) else pa.array(column, dtype)

    return pa.table([cast(columns[f.name], f.type) for f in table.schema], schema=table.schema)


def _save(path: Path, rows: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, compression="zstd", row_group_size=250_000)
