"""A toy log with what augment and discriminate make of it, for the stages around θ. No test in here."""

import datetime as dt

import pyarrow as pa

from crops.config.discriminate import DiscriminateConfig
from crops.stages.learn import discriminate, theta
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy

CFG = DiscriminateConfig(base="small", epochs=2, batch=16, max_tokens=32, ladder_pairs=4, held_out_share=0.5)
DAYS = ("2026-01-01", "2026-01-02")


def log(folder):
    """Per day and topic one search: a skipped video of another topic above a long play of the own one. Day 2
    is held out.
    """
    searches, results = [], []
    for d, day in enumerate(DAYS):
        for t in range(toy.TOPICS):
            name, ts = f"s{d}_{t}", dt.datetime(2026, 1, 1 + d, 12, tzinfo=dt.UTC)
            searches.append(
                {"search_id": name, "user_id": "u", "ts": ts, "query": f"Subject{t}", "date": day}
            )
            for place, (topic, clicked) in enumerate((((t + 5) % toy.TOPICS, False), (t, True))):
                results.append(
                    {
                        "search_id": name,
                        "video_id": toy.doc(topic, d),
                        "stage": "exposed",
                        "position": place,
                        "clicked": clicked,
                        "liked": False,
                        "play_s": 30.0 if clicked else None,
                        "date": day,
                    }
                )
    videos = [
        {
            "video_id": r["doc_id"],
            "caption": r["text"],
            "keywords": [],
            "cover_text": "",
            "related_queries": [],
            "duration_s": 60.0,
        }
        for r in toy.DOCUMENTS
    ]
    folder.mkdir()
    for table, content in (
        (records.SEARCHES, searches),
        (records.RESULTS, results),
        (records.VIDEOS, videos),
    ):
        fields = [f.with_nullable(True) for f in table.schema] + (
            [pa.field("date", pa.string())] if table.partitioned else []
        )
        artifacts.write(folder, table, pa.Table.from_pylist(content, schema=pa.schema(fields)))
    return folder


def make(root):
    """A log, its mined candidates with knowledge, the truth, and in `out` what discriminate makes of them."""
    log(root / "logs"), toy.mined(root / "mined")
    more = [
        {
            "query": f"subject{t}",
            "video_id": toy.doc(t, 9),
            "perspective": "reformulation",
            "later_query": later,
            "first_ts": 0,
            "support": 1,
        }
        for t in range(toy.TOPICS)
        for later in (f"part1 subject{t}", "keyword11")
    ]
    feed = [
        {
            "query": f"subject{t}",
            "video_id": toy.doc((t + n) % 12, 8),
            "perspective": "feed",
            "first_ts": 0,
            "support": 1,
        }
        for t in range(toy.TOPICS)
        for n in (0, 3)
    ]
    gone = [{"query": "subject1", "video_id": "gone", "perspective": "click", "first_ts": 0, "support": 1}]
    toy.write(
        root / "mined",
        CANDIDATES=[*toy.candidates(), *more, *feed, *gone],
        TEST_QR=toy.pairs(
            *((f"part{t} subject{t}", toy.doc(t, 1)) for t in range(toy.TOPICS)), ("subject1", "gone")
        ),
    )
    artifacts.write_json(root / "mined" / "augment.json", {"days": {"train": [DAYS[0]], "test": [DAYS[1]]}})
    toy.write(
        root / "known",
        KNOWLEDGE=[
            {
                "query": f"subject{t}",
                "doc_id": f"knowledge:{t}",
                "text": "nothing in common",
                "exemplar_id": "",
                "model": "m",
            }
            for t in range(toy.TOPICS)
        ],
    )
    toy.write(root / "truth", RELEVANCE=toy.truth())
    run(root, root / "out", knowledge=[root / "known"], truth=root / "truth")


def run(root, out, cfg=CFG, **more):
    if "theta" not in more:
        more["theta"] = out.with_name(f"{out.name}-theta")
        theta.run(root / "logs", root / "mined", more["theta"], cfg)
    return discriminate.run(root / "mined", out, cfg, **more)


def scored(folder):
    return artifacts.read(folder, records.SCORED).to_pandas()
