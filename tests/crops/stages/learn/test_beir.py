"""A folder in BEIR's form, written by us and by hand, ranked and judged; pytrec_eval confirms the numbers
from the files.
"""

import json

import click
import numpy as np
import pytest
import pytrec_eval

from crops.cli import fit
from crops.config.export import ExportConfig
from crops.errors import InputError
from crops.evaluation import beir as collections
from crops.stages.learn import beir
from crops.stages.release import export
from tests.crops.stages import toy_release as toy


def collection(folder):
    """Every topic's first document is graded 2, its second 1."""
    documents = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    queries = {f"q{t}": f"Subject{t}" for t in range(toy.TOPICS)}
    graded = {f"q{t}": {toy.doc(t, 0): 2, toy.doc(t, 1): 1, toy.doc(t, 2): 0} for t in range(toy.TOPICS)}
    collections.write(folder, documents, queries, {"test": graded})
    return folder


def trec(path, columns):
    out = {}
    for line in path.read_text().splitlines():
        parts = line.split()
        out.setdefault(parts[0], {})[parts[2]] = columns(parts)
    return out


def test_pytrec_eval_finds_the_same_numbers_in_the_files(tmp_path):
    toy.trained(tmp_path / "encoder")
    export.run(tmp_path / "encoder", tmp_path / "onnx", ExportConfig(sentence_transformers=False))
    beir.run(collection(tmp_path / "beir"), tmp_path / "out", release=tmp_path / "onnx")
    about = json.loads((tmp_path / "out" / "beir.json").read_text())
    qrels = trec(tmp_path / "out" / "qrels.trec", lambda parts: int(parts[3]))
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10,100"})
    for system in ("bm25", "release"):
        ranked = trec(tmp_path / "out" / f"run.{system}.trec", lambda parts: float(parts[4]))
        found = judge.evaluate(ranked).values()
        for ours, theirs in (("ndcg_at_10", "ndcg_cut_10"), ("recall_at_10", "recall_10")):
            mean = sum(of[theirs] for of in found) / len(found)
            assert about["systems"][system][ours] == pytest.approx(mean, abs=1e-4)
    assert about["queries"] == toy.TOPICS


def test_what_we_write_we_read(tmp_path):
    found = collections.read(collection(tmp_path / "beir"))
    assert found.query_ids == tuple(f"q{t}" for t in range(toy.TOPICS))
    assert {found.doc_ids[d]: g for d, g in found.grades[3].items()} == {
        toy.doc(3, 0): 2,
        toy.doc(3, 1): 1,
        toy.doc(3, 2): 0,
    }


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("corpus.jsonl", '{"_id": "a"}\n', "line 1 lacks one of _id, text"),
        ("queries.jsonl", "no json\n", "line 1 is no JSON"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0 v00x00 1\n", "line 2 is not"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq0\tgone\t1\n", "no query with a relevant"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, says):
    (collection(tmp_path / "beir") / name).write_text(content)
    with pytest.raises(InputError, match=says) as told:
        beir.run(tmp_path / "beir", tmp_path / "out")
    assert name in str(told.value)
    with pytest.raises(InputError, match="no such file"):
        beir.run(tmp_path / "none", tmp_path / "out")


def test_the_verb_takes_a_collection_or_what_the_pipeline_wrote(tmp_path):
    words = ["--beir", collection(tmp_path / "beir"), "--out", tmp_path / "out"]
    fit.evaluate.main(list(map(str, words)), standalone_mode=False)
    assert json.loads((tmp_path / "out" / "beir.json").read_text())["systems"].keys() == {"bm25"}
    with pytest.raises(click.UsageError, match="--documents and --tests, or --beir"):
        fit.evaluate.main(["--out", str(tmp_path / "none")], standalone_mode=False)


def test_ids_with_white_space_are_written_so_that_trec_reads_them(tmp_path):
    """Percent signs are escaped as well, so that two ids never become one."""
    ids = ["a b", "a%20b", "c"]
    documents = dict.fromkeys(ids, "text")
    judged = collections.judgements({"ct": {"q": {0}, "p": {2}}, "qr": None}, {"q": {0: 3, 1: 1}})
    assert judged == {"ct": {"q": {1: 0, 0: 2}, "p": {2: 1}}}
    ranked = np.array([[2, -1], [1, 0]])
    collections.write_trial(tmp_path / "beir", documents, ["p", "q"], judged, {"bm25": ranked})
    run = (tmp_path / "beir" / "trec" / "run.bm25.trec").read_text().splitlines()
    assert run == ["q0 Q0 c 1 2 bm25", "q1 Q0 a%2520b 1 2 bm25", "q1 Q0 a%20b 2 1 bm25"]
    found = collections.read(tmp_path / "beir", "ct")
    assert found.doc_ids == ("a%20b", "a%2520b", "c")
    assert found.queries == ("p", "q")
    assert [sorted(of.items()) for of in found.grades] == [[(2, 1)], [(0, 2), (1, 0)]]


def by_hand(folder, *, corpus='{"_id": "d", "text": "rye"}', qrels="q\td\t1", encoding="utf-8"):
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("corpus.jsonl", corpus),
        ("queries.jsonl", '{"_id": "q", "text": "bread"}'),
        ("qrels/test.tsv", f"query-id\tcorpus-id\tscore\n{qrels}\n"),
    ):
        (folder / name).write_text(text, encoding=encoding)
    return folder


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"corpus": '{"_id": "d", "text": "é"}', "encoding": "latin-1"}, "corpus.jsonl: not UTF-8"),
        ({"corpus": '{"_id": "d", "text": null}'}, "corpus.jsonl: line 1 lacks"),
        ({"qrels": "q\td\t²"}, "test.tsv: line 2"),
        ({"qrels": "q\td\t--1"}, "test.tsv: line 2"),
    ],
)
def test_what_is_no_text_and_no_score_is_named_with_its_file(tmp_path, wrong, fault):
    with pytest.raises(InputError, match=fault):
        collections.read(by_hand(tmp_path, **wrong))


def test_a_mark_of_the_encoding_empty_lines_and_odd_ids_are_read(tmp_path):
    """U+2028 ends a line for str.splitlines alone; the ids hold it."""
    odd = by_hand(
        tmp_path, corpus='{"_id": "d\u2028", "text": "rye"}', qrels="q\td\u2028\t1\n", encoding="utf-8-sig"
    )
    assert collections.read(odd).grades == ({0: 1},)
    (odd / "qrels" / "test.tsv").write_text("q\td\u2028\t3\n", encoding="utf-8")
    assert collections.read(odd).grades == ({0: 3},), "the first line is no header"
