"""Each list of perspectives stands once; one from outside, made by the recipe in CONTRIBUTING, goes the whole
way from the log to the ladder.
"""

import ast
import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from crops import perspectives
from crops.tables import artifacts, records
from crops.text import normalise_query
from crops.world import simulate

ROOT = Path(__file__).resolve().parents[2]
NAMES = {p.name for p in (*perspectives.PAPER, *perspectives.ENGINE)}
HOUR = dt.timedelta(hours=1)


def literals(tree):
    """The texts in each literal list, tuple, set and dict."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            yield node.lineno, {e.value for e in node.elts if isinstance(e, ast.Constant)}
        elif isinstance(node, ast.Dict):
            for side in (node.keys, node.values):
                yield node.lineno, {e.value for e in side if isinstance(e, ast.Constant)}


def test_no_list_of_perspectives_stands_outside_of_their_module():
    """The world and the adapters write logs; they know the stages of an engine, not the method."""
    folders = ("crops", "components", "pipelines", "serving", "monitoring")
    apart = [ROOT / "crops" / name for name in ("perspectives.py", "world", "adapters")]
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if not any(path.is_relative_to(a) for a in apart)
    ]
    assert len(files) > 100
    lists = [
        f"{path.relative_to(ROOT)}:{line}: {sorted(NAMES & texts)}"
        for path in files
        for line, texts in literals(ast.parse(path.read_text()))
        if len(NAMES & texts) > 1
    ]
    assert not lists, "\n".join(lists)


def test_the_papers_lists_are_what_they_were():
    assert perspectives.names() == (
        *("click", "reformulation", "feed", "knowledge"),
        *("exposed", "ranked", "filtered"),
    )
    assert perspectives.names(gated=True) == perspectives.names(shifted=True) == ("reformulation", "feed")
    assert perspectives.labels() == {
        **{"reformulation": 5, "click": 4, "feed": 4, "knowledge": 4},
        **{"exposed": 3, "ranked": 2, "filtered": 1},
    }
    assert perspectives.positive_min() == 4


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (perspectives.CLICK, "is there already"),
        (
            perspectives.Perspective(name="seen", label=3, positive=False, table="results"),
            "expected a source",
        ),
        (perspectives.Perspective(name="seen", label=3), "with a table to mine"),
    ],
)
def test_a_row_that_could_not_be_mined_is_refused(row, words):
    with pytest.raises(ValueError, match=words):
        perspectives.register(row, mine=lambda searches, rows: rows)


def recipe(folder):
    """The blocks of CONTRIBUTING's recipe: the files written into `folder`, the commands returned."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index("## Adding a perspective") : text.index("## Adding a stage")]
    blocks = re.findall(r"^   ```(\w+) ?(\S*)\n(.*?)^   ```$", section, flags=re.M | re.S)
    files = {name: re.sub("(?m)^   ", "", code) for _kind, name, code in blocks if name}
    folder.mkdir()
    for name, code in files.items():
        (folder / name).write_text(code)
    lines = [x for code in files.values() for x in code.splitlines() if x.strip()]
    assert len(files) <= 5
    assert len(lines) <= 30, f"{len(lines)} lines"
    (commands,) = (code for kind, _name, code in blocks if kind == "sh")
    return commands


def save_videos(logs):
    """The table `saved`: after every third search the user saves a relevant video (two of five times) or any,
    within the hour (three of four times) or later. Returns the pairs of the recipe, by brute force.
    """
    rng = np.random.default_rng(0)
    truth = artifacts.read(logs / "truth", records.RELEVANCE).to_pandas()
    relevant = truth[truth["grade"] >= 2].groupby("query")["video_id"].apply(list).to_dict()
    videos = artifacts.read(logs, records.VIDEOS)["video_id"].to_pylist()
    searches = artifacts.read(logs, records.SEARCHES).to_pandas().sort_values("search_id")
    rows = []
    for search in searches.iloc[::3].itertuples():
        good = relevant.get(normalise_query(search.query), [])
        pool = good if good and rng.random() < 0.4 else videos
        after = HOUR * rng.random() * (1 if rng.random() < 0.75 else 20)
        rows.append((search.user_id, pool[rng.integers(len(pool))], search.ts + after))
    saved = pd.DataFrame(rows, columns=["user_id", "video_id", "ts"]).drop_duplicates()
    saved["date"] = saved["ts"].dt.strftime("%Y-%m-%d")
    for date, part in saved.groupby("date"):
        (logs / "saved" / f"date={date}").mkdir(parents=True)
        part.drop(columns="date").to_parquet(
            logs / "saved" / f"date={date}" / "part-0.parquet", index=False, coerce_timestamps="us"
        )
    days = sorted(searches["ts"].dt.strftime("%Y-%m-%d").unique())
    saved = saved[saved["date"] < days[-1]]
    past = searches[searches["ts"].dt.strftime("%Y-%m-%d") < days[-1]]
    both = past.merge(saved, on="user_id", suffixes=("", "_saved"))
    near = both[(both["ts_saved"] >= both["ts"]) & (both["ts_saved"] <= both["ts"] + HOUR)]
    return {(normalise_query(q), v) for q, v in zip(near["query"], near["video_id"], strict=True)}


SECTIONS = {
    "discriminate": {"epochs": 1, "max_pairs": 300, "dual_steps": 0, "max_tokens": 24, "ladder_pairs": 50},
    # As an older YAML has it: it knows nothing of `saved`.
    "label": {"labels": perspectives.labels(), "judged_pairs": 20},
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The recipe installed beside this project; the verbs run on a tiny world in processes of their own."""
    folder = tmp_path_factory.mktemp("saved")
    logs = folder / "logs"
    simulate.write(logs, scale="tiny", seed=0)
    expected = save_videos(logs)
    place = str(folder / "installed")
    env = {
        **os.environ,
        **{"PIP_TARGET": place, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{place}",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(SECTIONS))

    def run(*command, cwd=folder):
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    commands = recipe(folder / "package")
    run("bash", "-ec", commands, cwd=folder / "package")

    def verb(name, *options):
        config = [] if name == "validate" else ["--config", "config.yaml"]
        return run(sys.executable, "-m", "crops", name, *options, *config)

    said = verb("validate", "--logs", "logs", "--out", "valid")
    assert re.search(r"saved_quarantined +0\n", said), said
    verb("augment", "--logs", "valid", "--out", "mined")
    verb("discriminate", "--logs", "valid", "--candidates", "mined", "--out", "scored")
    people(folder)
    verb("label", "--scored", "scored", "--out", "samples", "--judged", "judged", "--truth", "logs/truth")
    return folder, expected, run


def people(folder):
    """People's grades of half of the pairs, drawn by chance: what the world calls relevant."""
    truth = artifacts.read(folder / "logs/truth", records.RELEVANCE).to_pandas()
    graded = dict(zip(zip(truth["query"], truth["video_id"], strict=True), truth["grade"], strict=True))
    rows = artifacts.read(folder / "scored", records.SCORED).to_pandas()
    drawn = rows[rows["perspective"] == "saved"].sample(frac=0.5, random_state=0)
    judged = [
        {"query": q, "video_id": d, "grade": graded.get((q, d), 0)}
        for q, d in zip(drawn["query"], drawn["doc_id"], strict=True)
    ]
    artifacts.write(
        folder / "judged", records.RELEVANCE, pa.Table.from_pylist(judged, schema=records.RELEVANCE.schema)
    )
    artifacts.write_json(folder / "judged" / "judgement.json", {"raters": 1})


def test_a_perspective_by_the_recipe_is_mined_gated_and_measured(chain):
    """The candidates are those of brute force; the ladder's share by people's grades of half of the kept
    pairs holds the share of all kept ones within its interval.
    """
    folder, expected, _run = chain
    mined = artifacts.read(folder / "mined", records.CANDIDATES).to_pandas()
    own = mined[mined["perspective"] == "saved"]
    assert set(zip(own["query"], own["video_id"], strict=True)) == expected
    scored = artifacts.read(folder / "scored", records.SCORED).to_pandas()
    own = scored[scored["perspective"] == "saved"]
    grades = artifacts.read(folder / "logs/truth", records.RELEVANCE).to_pandas()
    good = set(grades[grades["grade"] >= 2][["query", "video_id"]].itertuples(index=False, name=None))
    kept = own[own["kept"]]
    share = np.mean([pair in good for pair in zip(kept["query"], kept["doc_id"], strict=True)])
    texts = artifacts.texts(folder / "mined")
    apart = artifacts.held_out(folder / "mined", texts)
    learnable = {(query, video) for query, video in expected if (query, texts[video]) not in apart}
    assert set(zip(own["query"], own["doc_id"], strict=True)) == learnable, "all but validation pairs"
    np.testing.assert_array_equal(own["kept"], own["theta"] > 0.6)
    assert "saved" in artifacts.read_json(folder / "scored/discriminate.json")["thresholds"]
    label = artifacts.read_json(folder / "samples/label.json")
    assert label["hierarchy"]["labels"] == perspectives.labels() | {"saved": 4}
    rungs = label["rungs"]
    truth = rungs["truth_by_perspective"]["saved"]
    judged = rungs["judged_by_perspective"]["saved"]
    assert truth["pairs"] == own["kept"].sum() > judged["pairs"] > 20
    assert truth["share"] == pytest.approx(share, abs=1e-4)
    assert judged["low"] <= share <= judged["high"]
    samples = artifacts.read(folder / "samples", records.SAMPLES).to_pandas()
    assert (samples.loc[samples["perspective"] == "saved", "label"] == 4).all()


def test_a_log_without_its_table_is_noted(chain):
    folder, _expected, run = chain
    (folder / "without").mkdir(exist_ok=True)
    for table in records.LOGS:
        (folder / "without" / table.name).symlink_to(folder / "valid" / table.name)
    said = run(sys.executable, "-m", "crops", "augment", "--logs", "without", "--out", "mined-without")
    assert "saved: no such table" in said
    assert re.search(r"saved_candidates +0\n", said), said


def test_tasks_of_a_pipeline_know_it(chain):
    """A task is `python3 -c ...`; caches depend on the extension's source."""
    folder, _expected, run = chain
    code = (
        "from crops import perspectives; from crops.tables import fingerprint; from pathlib import Path; "
        "print(perspectives.names(gated=True), fingerprint.of(Path('without')))"
    )
    before = run(sys.executable, "-c", code)
    assert before.startswith("('reformulation', 'feed', 'saved')")
    with (folder / "installed/crops_saved.py").open("a") as file:
        file.write("# changed\n")
    assert run(sys.executable, "-c", code) != before
