"""What becomes of a search engine whose next release is trained on the log of its last one?

    python benchmarks/bubble.py [--seeds 3] [--weeks 10] [--systems clicks crops] [--out DIR]

The tiny simulated world (500 searches a day) lives week after week. In the first the incumbent answers, in
each later one its dense path goes by an encoder that was trained on the two weeks before: by clicks alone, by
CroPS without an LLM, or by CroPS where one result in ten is drawn from what the engine ranked and did not
show. `incumbent` goes on as it was, learning words from clicks every night. Nothing of people or engine is
set for this. A release of CroPS takes minutes, so ten weeks and three seeds take a night.

Measured, per week: how often people reword a search, how many of the videos that fit a need were ever shown
to somebody with that need, and on how many videos half of the impressions fall.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import crops
from benchmarks import report
from crops import perspectives
from crops.api import Trained
from crops.report import charts
from crops.retriever.systems import BASELINE, SYSTEMS
from crops.tables import records
from crops.text import document_text
from crops.world import simulate
from crops.world.engine import Engine
from crops.world.settings import FIRST_DAY

DAYS, TRAINED_ON, SCALE = 7, 14, "tiny"
INCUMBENT, EXPLORING = "incumbent", "crops exploring"
NAMES = (INCUMBENT, "clicks", "crops", EXPLORING)
IMAGES = Path(__file__).resolve().parents[1] / "docs/bubble"
FITS = 2  # the lowest grade that people are satisfied by
EXPLORE = 0.1
WORDS = {
    "reworded": "searches reworded",
    "clicked": "results clicked",
    "ever_shown": "fitting videos ever shown",
    "half_on": "videos with half of the impressions",
}
# What each picture calls its figure.
PICTURES = {"reworded": "searches reworded, %", "half_on": "diversity, % of videos"}


class Exploring(Engine):
    """Draws one shown result in ten anew from those that it ranked below."""

    def search(self, queries: ndarray) -> tuple[ndarray, ndarray]:
        """As Engine.search."""
        videos, paths = super().search(queries)
        shown = self.settings.exposed
        ranked = shown + self.settings.ranked
        swapped = self.chance.random((len(queries), shown)) < EXPLORE
        for row, column in zip(*np.nonzero(swapped), strict=True):
            other = self.chance.integers(shown, ranked)
            for array in (videos, paths):
                array[row, [column, other]] = array[row, [other, column]]
        return videos, paths


def release(name: str, logs: Path, seed: int) -> Trained:
    """An encoder trained on `logs` as the system of that name is."""
    mined = crops.mine(logs)
    if name == BASELINE:
        graded = crops.label(mined.candidates).only(*SYSTEMS[BASELINE].only)
        lowest = perspectives.labels()[perspectives.CLICK.name]
        return crops.train(graded, mined, loss="info_nce", anchor_min=lowest, seed=seed)
    graded = crops.label(crops.discriminate(mined, seed=seed))
    return crops.train(graded, mined, seed=seed)


def weeks(name: str, count: int, seed: int, work: Path) -> list[dict[str, float]]:
    """The figures of every week of one engine in the world of that seed."""
    world = simulate.make(SCALE, seed=seed)
    engine = simulate.begin(world, work, Exploring if name == EXPLORING else Engine)
    parts = (world.videos.captions, world.videos.keywords, world.videos.covers, world.videos.related)
    documents = [document_text(*texts) for texts in zip(*parts, strict=True)]
    wanted = _fitting(world)
    ever = np.zeros_like(wanted)
    rows = []
    for week in range(count):
        tally, shown = Counter[str](), np.zeros(len(documents))
        if week and name != INCUMBENT:
            logs = _last(work, week, work / f"week-{week}")
            trained = release(name.split()[0], logs, seed)
            engine.serve(trained.encode(world.queries.texts), trained.encode(documents, kind="document"))
        for day in range(week * DAYS, (week + 1) * DAYS):
            searches = simulate.day(world, engine, day, tally, work)
            videos = searches["videos"][:, : world.settings.exposed]
            ever[searches["intent"][:, None], videos] = True
            shown += np.bincount(videos.ravel(), minlength=len(shown))
        share = np.sort(shown)[::-1].cumsum() / shown.sum()
        rows.append(
            {
                "reworded": tally["rephrased"] / tally["searches"],
                "clicked": tally["clicks"] / tally["shown"],
                "ever_shown": float((ever & wanted).sum() / wanted.sum()),
                "half_on": float((np.searchsorted(share, 0.5) + 1) / len(shown)),
            }
        )
        print(name, seed, week, json.dumps(rows[-1]), flush=True)
    return rows


def _fitting(world: simulate.World) -> ndarray:
    """bool [I, V]: whether a video satisfies an intent."""
    intents = np.arange(len(world.popularity))
    everything = np.tile(np.arange(len(world.videos.intent)), (len(intents), 1))
    return np.asarray(world.videos.grades(intents, everything) >= FITS)


def _last(work: Path, week: int, folder: Path) -> Path:
    """The last days before `week` as a log of their own, by links."""
    first = np.datetime64(FIRST_DAY)
    folder.mkdir()
    (folder / "videos").symlink_to(work / "videos")
    for table in (table.name for table in records.LOGS if table.partitioned):
        (folder / table).mkdir()
        for number in range(max(0, week * DAYS - TRAINED_ON), week * DAYS):
            name = f"date={first + number}"
            (folder / table / name).symlink_to(work / table / name)
    return folder


def pictured(figures: dict[str, list[list[dict[str, Any]]]]) -> None:
    """docs/bubble/*.svg: the mean over seeds, week by week, of what the picture is for."""
    for key, figure in PICTURES.items():
        means = {
            name: 100 * np.mean([[week[key] for week in weeks] for weeks in runs], axis=0)
            for name, runs in figures.items()
        }
        series = {name: (range(1, len(mean) + 1), mean) for name, mean in means.items()}
        svg = charts.lines(series, x="week", y=figure, title=f"{WORDS[key]}, week by week")
        (IMAGES / f"{key}.svg").write_text(svg, encoding="utf-8")


def main() -> None:
    """Prints a table of the first week and of those after it; --out keeps every week as JSON, --write draws
    the pictures as well.
    """
    parser = report.arguments(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weeks", type=int, default=10)
    parser.add_argument("--systems", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, help="figures of every week as JSON, one file a system and seed")
    given = parser.parse_args()
    figures: dict[str, list[list[dict[str, Any]]]] = {}
    for seed in range(given.seeds):
        for name in given.systems:
            kept = given.out and given.out / f"{name.replace(' ', '-')}-{seed}.json"
            if kept and kept.is_file():
                rows = json.loads(kept.read_text(encoding="utf-8"))
            else:
                with tempfile.TemporaryDirectory() as work:
                    rows = weeks(name, given.weeks, seed, Path(work).resolve())
                if kept:
                    given.out.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(rows), encoding="utf-8")
            figures.setdefault(name, []).append(rows)
    header = [
        "engine",
        *(f"{what}, {when}" for what in WORDS.values() for when in ("week 1", "then", "last")),
    ]
    lines = [
        [
            name,
            *(
                _percent([float(np.mean([week[key] for week in run[part]])) for run in runs])
                for key in WORDS
                for part in (slice(0, 1), slice(1, None), slice(-1, None))
            ),
        ]
        for name, runs in figures.items()
    ]
    text = (
        "# Releases that are trained on what the last one showed\n\n"
        f"{SCALE} world, {given.seeds} seeds, {given.weeks} weeks, %: mean (least to most). Then: "
        f"the mean of weeks 2 to {given.weeks}, after releases.\n\n"
        f"{report.table(header, lines)}\n\n{report.machine(['torch', 'transformers'])}"
    )
    report.out("bubble", text, write=given.write)
    if given.write:
        pictured(figures)


def _percent(values: list[float]) -> str:
    low, mean, high = (100 * x for x in (min(values), sum(values) / len(values), max(values)))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
