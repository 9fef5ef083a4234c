"""The evaluation stage against trec_eval on the same rankings, its sets by hand, and null where nobody knows
grades.
"""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import InformationRetrievalEvaluator

from crops.config.evaluate import EvaluateConfig
from crops.config.export import ExportConfig
from crops.errors import InputError
from crops.evaluation import sets, trial
from crops.release import layout
from crops.retriever import encoder as encoders
from crops.retriever import generative, semantic_ids
from crops.stages.learn import beir, evaluate
from crops.stages.release import export
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy

CFG = EvaluateConfig(bootstrap=100, write_beir=True)
SYSTEMS = ("base", "clicks", "clicks_mnrl", "crops", "crops_paper", "crops_no_knowledge")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The stage on the toy catalogue with four systems and a champion; the champion is the ONNX form of
    `crops`.
    """
    root = tmp_path_factory.mktemp("evaluate")
    toy.mined(root / "mined"), toy.gated(root / "gated"), toy.write(root / "truth", RELEVANCE=toy.truth())
    systems = {name: toy.trained(root / name, seed=seed) for seed, name in enumerate(SYSTEMS)}
    export.run(systems["crops"], root / "champion", ExportConfig())
    evaluate.run(
        root / "mined",
        root / "gated",
        root / "out",
        CFG,
        systems=systems,
        truth=root / "truth",
        champion=root / "champion",
    )
    return root, systems, artifacts.read_json(root / "out" / "metrics.json")


def test_every_set_and_system_is_there(chain):
    _root, _systems, metrics = chain
    names = {"bm25", *SYSTEMS, "champion"}
    for measure in ("recall_at_20", "recall_at_100"):
        assert {name: set(found) for name, found in metrics[measure].items()} == dict.fromkeys(
            sets.SETS, names
        )
    assert (
        set(metrics["ndcg_at_4"])
        == set(metrics["never_exposed_found"])
        == set(metrics["diversity_at_10"])
        == names
    )
    # truth: 3 queries a topic; unseen: the keyword query; no_click: the tail query (2 searches, tail);
    # qr_raw: it and subject0.
    # The base is made of these very texts: no word is foreign to it.
    assert metrics["counts"] == {
        "qr_raw_foreign": 0,
        "qr_raw_familiar": 13,
        "truth_foreign": 0,
        "truth_familiar": 36,
        "ct": 12,
        "qr": 12,
        "qr_raw": 13,
        "qr_relevant": 13,
        "truth": 36,
        "unseen": 12,
        "no_click": 12,
        "qr_head": 1,
        "qr_torso": 0,
        "qr_tail": 12,
    }
    assert metrics["slices"]["torso"] is None
    for ours in ("crops", "crops_no_knowledge"):
        assert set(metrics["intervals"]["truth"][f"{ours}_minus"]) == names - {ours}


def test_exported_champion_ranks_as_torch_does(chain):
    _root, _systems, metrics = chain
    assert all(found["champion"] == found["crops"] for found in metrics["recall_at_100"].values())
    assert metrics["intervals"]["truth"]["crops_minus"]["champion"] == {
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
    }


def brute_force(systems):
    """Rankings as a dictionary for trec_eval: every score of every document, in float64."""
    names = sorted({row["query"] for row in toy.truth()})
    model = encoders.load(systems["crops"])
    documents = model.encode(toy.TEXTS, kind="document").astype(np.float64)
    scores = model.encode(names, kind="query").astype(np.float64) @ documents.T
    ids = [row["doc_id"] for row in toy.DOCUMENTS]
    return {q: dict(zip(ids, row.tolist(), strict=True)) for q, row in zip(names, scores, strict=True)}


def test_numbers_agree_with_trec_eval(chain):
    root, systems, metrics = chain
    run = brute_force(systems)
    grades = {}
    for row in toy.truth():
        grades.setdefault(row["query"], {})[row["video_id"]] = row["grade"]
    relevant = {q: {d: int(g >= 2) for d, g in known.items()} for q, known in grades.items()}
    recall = pytrec_eval.RelevanceEvaluator(relevant, {"recall.20,100"}).evaluate(run)
    ndcg = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.4"}).evaluate(run)
    for k in (20, 100):
        mean = np.mean([found[f"recall_{k}"] for found in recall.values()])
        assert metrics[f"recall_at_{k}"]["truth"]["crops"] == pytest.approx(mean, abs=6e-5)
    assert metrics["ndcg_at_4"]["crops"] == pytest.approx(
        np.mean([x["ndcg_cut_4"] for x in ndcg.values()]), abs=6e-5
    )
    table = pq.read_table(root / "out" / "per_query.parquet").to_pylist()
    ours = {r["query"]: r["recall_at_20"] for r in table if (r["set"], r["system"]) == ("unseen", "crops")}
    assert len(ours) == 12
    assert all(ours[q] == pytest.approx(recall[q]["recall_20"]) for q in ours)


def test_never_exposed_found_by_hand(chain):
    """subject t: relevant n = 0..9, of which 0, 3 were clicked and 1, 4 exposed: 6 hidden; the two other
    queries hide all 10. BM25 on "subject t" finds the topic's 15 documents (all), on "keyword t" too, on
    "part t subject t" too: 26 of 26.
    """
    _root, _systems, metrics = chain
    assert metrics["never_exposed_found"]["bm25"] == 1.0


def test_clicked_pairs_found_by_hand_apart_by_relevance():
    """Query a clicked 1 (relevant) and 2 (not), found 1; b clicked 3 (not), found it; c has no grades and
    does not count.
    """
    clicked, grades = {"a": {1, 2}, "b": {3}, "c": {9}}, {"a": {1: 3, 2: 1}, "b": {4: 2}}
    ranked, place = np.array([[1, 7], [3, 4], [9, 8]]), {"a": 0, "b": 1, "c": 2}
    found = trial.clicked_found(clicked, grades, ranked, place, complete=True)
    judged = trial.clicked_found(clicked, grades, ranked, place, complete=False)
    assert judged == {"relevant": 1.0, "not relevant": 0.0}, "of a sample, 3 is not judged and does not count"
    assert found == {"relevant": 1.0, "not relevant": 0.5}
    assert trial.clicked_found(clicked, None, np.array([[1, 7]]), {"a": 0}, complete=True) == {}


def test_relevant_part_of_qr_is_ungated(chain):
    """Each tail query has documents 0 (relevant) and 12 (grade 1): qr_relevant holds document 0 only, as
    gated qr here.
    """
    root, _systems, _metrics = chain
    table = pq.read_table(root / "out" / "per_query.parquet").to_pylist()
    values = {(r["set"], r["query"]): r["recall_at_100"] for r in table if r["system"] == "bm25"}
    assert values["qr_relevant", "part3 subject3"] == values["qr", "part3 subject3"] == 1.0


def test_without_grades_sets_are_null(chain, tmp_path):
    root, _systems, _metrics = chain
    evaluate.run(root / "mined", root / "gated", tmp_path / "out", CFG, systems={})
    metrics = artifacts.read_json(tmp_path / "out" / "metrics.json")
    for name in ("qr_relevant", "truth", "unseen", "no_click"):
        assert (
            metrics["recall_at_100"][name] is metrics["recall_at_20"][name] is metrics["counts"][name] is None
        )
    assert metrics["ndcg_at_4"] == metrics["never_exposed_found"] == {"bm25": None}
    assert metrics["recall_at_100"]["ct"]["bm25"] == 1.0
    assert pq.read_schema(tmp_path / "out" / "per_query.parquet").field("ndcg_at_4").type == "double"


def test_a_query_that_shares_no_word_finds_nothing_by_bm25(tmp_path):
    mined = toy.mined(tmp_path / "mined")
    toy.write(mined, TEST_CT=toy.pairs(("zebra", toy.doc(0, 0)), ("", toy.doc(0, 0))))
    toy.write(mined, TEST_QR=toy.pairs(("zebra", toy.doc(0, 0))))
    evaluate.run(mined, mined, tmp_path / "out", CFG, systems={})
    metrics = artifacts.read_json(tmp_path / "out" / "metrics.json")
    assert metrics["recall_at_100"]["ct"] == {"bm25": 0.0}
    assert metrics["diversity_at_10"] == {"bm25": None}


def test_too_many_queries_are_a_fixed_draw(chain, tmp_path):
    root, _systems, _metrics = chain
    few = CFG.model_copy(update={"max_queries": 5})
    for name in ("a", "b"):
        evaluate.run(root / "mined", root / "gated", tmp_path / name, few, systems={}, truth=root / "truth")
    first, second = (pq.read_table(tmp_path / name / "per_query.parquet") for name in ("a", "b"))
    assert first.equals(second)
    assert artifacts.read_json(tmp_path / "a" / "metrics.json")["counts"]["truth"] == 5


def test_what_is_missing_is_named(chain, tmp_path):
    root, _systems, _metrics = chain
    with pytest.raises(InputError, match="no encoder"):
        evaluate.run(root / "mined", root / "gated", tmp_path / "out", CFG, systems={"crops": root / "truth"})
    assert not (tmp_path / "out").exists()
    mined = shutil.copytree(root / "mined", tmp_path / "mined")
    toy.write(mined, TEST_CT=[], TEST_QR=[])
    with pytest.raises(InputError, match="no test query at all"):
        evaluate.run(mined, mined, tmp_path / "out", CFG, systems={})


def test_people_are_asked_about_the_first_results_of_all_systems(chain):
    """The pool: at most ten documents a system and query with the best of their ranks, and what was
    consumed.
    """
    root, systems, _metrics = chain
    pool = artifacts.read(root / "out", records.POOL).to_pylist()
    ranks = {(r["query"], r["video_id"]): r["rank"] for r in pool}
    assert len(ranks) == len(pool)
    assert ranks["part3 subject3", toy.doc(3, 12)] == 0, "consumed after a reformulation"
    model = encoders.load(systems["crops"])
    order = np.argsort(
        -model.encode(toy.TEXTS, kind="document") @ model.encode(["keyword1"], kind="query")[0]
    )
    for place, row in enumerate(order[:10].tolist(), start=1):
        assert ranks["keyword1", toy.DOCUMENTS[row]["doc_id"]] <= place
    assert {rank for (query, _), rank in ranks.items() if query == "keyword1"} <= set(range(1, 11))


def test_the_first_results_of_every_system_are_kept_with_the_sets_for_which_they_count(chain):
    """In the order of a brute force over all documents; what counts for truth has grade 2 or 3."""
    root, _systems, _metrics = chain
    tops = artifacts.read(root / "out", records.TOPS).to_pylist()
    assert {row["system"] for row in tops} == {"bm25", *SYSTEMS, "champion"}
    ranked = {}
    for row in sorted(tops, key=lambda row: row["rank"]):
        ranked.setdefault((row["system"], row["query"]), []).append(row["doc_id"])
    assert max(map(len, ranked.values())) == CFG.tops
    run = brute_force({"crops": root / "crops"})
    for query, scores in run.items():
        best = sorted(scores.values(), reverse=True)[: CFG.tops]
        assert [scores[doc] for doc in ranked["crops", query]] == pytest.approx(best, abs=1e-6)
    relevant = {(r["query"], r["video_id"]) for r in toy.truth() if r["grade"] >= 2}
    assert all(("truth" in row["sets"]) == ((row["query"], row["doc_id"]) in relevant) for row in tops)
    assert any("ct" in row["sets"] for row in tops)


def test_of_a_pool_what_nobody_judged_is_unknown_and_candidates_do_not_measure(chain, tmp_path):
    """subject0 has 15 documents that BM25 cannot tell apart. Judged are the last of them (3) and one of
    another topic (0): of these two it finds the right one, so its nDCG is 1; all others counted as wrong, it
    would be 0.
    """
    root, _systems, _metrics = chain
    judged = tmp_path / "judgements"
    candidates = [{"query": "subject1", "video_id": toy.doc(1, 0), "grade": 3}]
    grades = [
        {"query": "subject0", "video_id": d, "grade": g} for d, g in ((toy.doc(0, 14), 3), (toy.doc(1, 0), 0))
    ]
    for folder, content in ((judged, candidates), (judged / "pool", grades)):
        toy.write(folder, RELEVANCE=content)
        artifacts.write_json(folder / "judgement.json", {})
    evaluate.run(root / "mined", root / "gated", tmp_path / "out", CFG, systems={}, truth=judged)
    metrics = artifacts.read_json(tmp_path / "out" / "metrics.json")
    assert metrics["counts"]["truth"] == 1, "subject1 was judged as a candidate only"
    assert metrics["ndcg_at_4"] == {"bm25": 1.0}
    assert metrics["grades"] == "pool"
    assert metrics["ndcg_intervals"] == {}, "of one query there is no interval"
    shutil.rmtree(judged / "pool")
    evaluate.run(root / "mined", root / "gated", tmp_path / "out", CFG, systems={}, truth=judged)
    assert artifacts.read_json(tmp_path / "out" / "metrics.json")["counts"]["truth"] is None


def test_queries_in_words_that_the_base_hardly_knows_stand_apart(chain, tmp_path):
    """The toy base holds "subject3" as one token and has never seen "zqxwvkpj": one query of each."""
    root, systems, _metrics = chain
    mined = shutil.copytree(root / "mined", tmp_path / "mined")
    toy.write(mined, TEST_QR=toy.pairs(("subject3", toy.doc(3, 0)), ("zqxwvkpj", toy.doc(3, 0))))
    base = {"base": systems["base"], "crops": systems["crops"]}
    evaluate.run(mined, root / "gated", tmp_path / "out", CFG, systems=base)
    metrics = artifacts.read_json(tmp_path / "out" / "metrics.json")
    assert (metrics["counts"]["qr_raw_foreign"], metrics["counts"]["qr_raw_familiar"]) == (1, 1)
    assert set(metrics["vocabulary"]["qr_raw"]["foreign"]) == {"bm25", "base", "crops"}
    assert metrics["vocabulary"]["qr_raw"]["familiar"]["bm25"] == 1.0
    assert metrics["intervals"]["qr_raw_foreign"] == {}, "of one query there is no interval"
    evaluate.run(mined, root / "gated", tmp_path / "none", CFG, systems={})
    assert artifacts.read_json(tmp_path / "none" / "metrics.json")["vocabulary"] == {
        "qr_raw": {},
        "truth": {},
    }


def test_scripts_stand_apart_where_there_are_several(chain, tmp_path):
    """30 Latin queries that name a document by its own words, and 30 Han ones that no word of it answers."""
    root, _systems, _metrics = chain
    mined = shutil.copytree(root / "mined", tmp_path / "mined")
    asked = [(f"subject3 part{n}", toy.doc(3, n % 15)) for n in range(30)]
    asked += [(f"红烧肉 {n}", toy.doc(3, n % 15)) for n in range(30)]
    toy.write(mined, TEST_QR=toy.pairs(*asked))
    evaluate.run(mined, root / "gated", tmp_path / "out", CFG, systems={})
    metrics = artifacts.read_json(tmp_path / "out" / "metrics.json")
    assert metrics["scripts"]["qr_raw"] == {"han": {"bm25": 0.0}, "latin": {"bm25": 1.0}}
    assert (metrics["counts"]["qr_raw_han"], metrics["counts"]["qr_raw_latin"]) == (30, 30)
    assert set(metrics["intervals"]["qr_raw_han"]) == {"bm25"}


def test_documents_without_a_positive_are_a_set_of_their_own_where_asked_for(chain, tmp_path):
    """Of each topic 0 and 3 were clicked in training: with truth 8 of 10 are left of every query. Without, of
    0 (clicked and consumed) and 12 (consumed) only 12 is. What an extension mined takes nothing away.
    """
    root, _systems, metrics = chain
    assert "cold_start" not in {*metrics["recall_at_100"], *metrics["counts"], *metrics["intervals"]}
    mined = shutil.copytree(root / "mined", tmp_path / "mined")
    extra = {"query": "subject0", "video_id": toy.doc(0, 12), "perspective": "saved", "first_ts": 0}
    toy.write(mined, CANDIDATES=[*toy.candidates(), extra | {"support": 1}])
    cfg = CFG.model_copy(update={"cold_start": True, "tops": 20})
    for name, truth, count in (("graded", root / "truth", 36), ("log", None, 12)):
        out = tmp_path / name
        evaluate.run(mined, root / "gated", out, cfg, systems={}, truth=truth)
        measured = artifacts.read_json(out / "metrics.json")
        assert measured["counts"]["cold_start"] == count
        assert measured["recall_at_100"]["cold_start"] == {"bm25": 1.0}
        assert set(measured["intervals"]["cold_start"]) == {"bm25"}
    counted = {
        (row["query"], row["doc_id"])
        for row in artifacts.read(tmp_path / "graded", records.TOPS).to_pylist()
        if "cold_start" in row["sets"]
    }
    left = {toy.doc(3, n) for n in (1, 2, 4, 5, 6, 7, 8, 9)}
    assert {doc for query, doc in counted if query == "subject3"} == left


def _lines(path):
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]


def test_trec_eval_finds_our_recall_in_the_files_of_every_set_and_system(chain):
    root, _systems, metrics = chain
    trec = root / "out" / "beir" / "trec"
    for name in sets.SETS:
        qrels = {}
        for query, _, doc, score in _lines(trec / f"qrels.{name}.trec"):
            qrels.setdefault(query, {})[doc] = int(score)
        judge = pytrec_eval.RelevanceEvaluator(qrels, {"recall.20,100"})
        for system, at_100 in metrics["recall_at_100"][name].items():
            run = {query: {} for query in qrels}
            for query, _, doc, _, score, _ in _lines(trec / f"run.{system}.trec"):
                if query in run:
                    run[query][doc] = float(score)
            found = judge.evaluate(run)
            for k, ours in ((20, metrics["recall_at_20"][name][system]), (100, at_100)):
                # A query for which BM25 finds nothing is in no line of its run.
                total = sum(of[f"recall_{k}"] for of in found.values())
                assert ours == pytest.approx(total / len(qrels), abs=6e-5), (name, system, k)


def test_our_own_door_reads_the_folder_to_the_same_recall(chain):
    root, _systems, metrics = chain
    for name in sets.SETS:
        beir.run(root / "out" / "beir", root / "read" / name, release=root / "champion", split=name)
        read = artifacts.read_json(root / "read" / name / "beir.json")
        assert read["queries"] == metrics["counts"][name]
        assert read["systems"]["release"]["recall_at_100"] == metrics["recall_at_100"][name]["champion"]
        assert read["systems"]["bm25"]["recall_at_100"] == metrics["recall_at_100"][name]["bm25"]


def test_sentence_transformers_measures_the_same_recall_from_the_folder(chain):
    """A reader, an encoder and a measure that are none of ours."""
    root, _systems, metrics = chain
    folder = root / "out" / "beir"
    texts = {}
    for kind in ("corpus", "queries"):
        rows = map(json.loads, (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines())
        texts[kind] = {row["_id"]: row["text"] for row in rows}
    relevant = {}
    for query, doc, score in _lines(folder / "qrels" / "truth.tsv")[1:]:
        if int(score):
            relevant.setdefault(query, set()).add(doc)
    queries = {query: texts["queries"][query] for query in relevant}
    judge = InformationRetrievalEvaluator(
        queries, texts["corpus"], relevant, precision_recall_at_k=[20, 100], name="truth"
    )
    found = judge(SentenceTransformer(str(root / "champion" / layout.HUB), device="cpu"))
    for k in (20, 100):
        ours = metrics[f"recall_at_{k}"]["truth"]["champion"]
        assert found[f"truth_cosine_recall@{k}"] == pytest.approx(
            ours, abs=2e-3
        )  # ties, and other arithmetic


def test_the_challenger_is_also_measured_at_every_width_that_it_was_trained_for(chain, tmp_path):
    """As if its release had been exported so: the same recall of every query."""
    root, systems, _metrics = chain
    shutil.copytree(systems["crops"], tmp_path / "crops")
    facts = artifacts.read_json(tmp_path / "crops/encoder/encoder.json")
    artifacts.write_json(tmp_path / "crops/encoder/encoder.json", {**facts, "widths": [6]})
    export.run(tmp_path / "crops", tmp_path / "cut", ExportConfig(width=6))
    evaluate.run(
        root / "mined",
        root / "gated",
        tmp_path / "out",
        EvaluateConfig(bootstrap=100),
        systems={"crops": tmp_path / "crops"},
        truth=root / "truth",
        champion=tmp_path / "cut",
    )
    metrics = artifacts.read_json(tmp_path / "out/metrics.json")
    for row in metrics["recall_at_20"].values():
        assert row["crops@6"] == row["champion"]
    assert metrics["recall_at_20"]["truth"]["crops@6"] < metrics["recall_at_20"]["truth"]["crops"]


def test_a_second_retriever_is_measured_alone_and_fused_and_changes_nothing_else(chain, tmp_path):
    root, systems, metrics = chain
    shutil.copytree(systems["crops"], tmp_path / "crops")
    width = encoders.load(systems["crops"]).width
    ids = semantic_ids.made(np.random.default_rng(0).normal(size=(len(toy.TEXTS), width)))
    generative.Generative(semantic_ids.trie(ids), width).save(tmp_path / "crops/generative", toy.TEXTS)
    evaluate.run(
        root / "mined",
        root / "gated",
        tmp_path / "out",
        CFG,
        systems={"clicks": systems["clicks"], "crops": tmp_path / "crops"},
        truth=root / "truth",
    )
    measured = artifacts.read_json(tmp_path / "out/metrics.json")
    second = {"crops_generative", "crops_generative_fused"}
    for name, row in measured["recall_at_20"].items():
        assert row.keys() == {"bm25", "clicks", "crops", *second}
        assert {s: x for s, x in row.items() if s not in second} == {
            s: x for s, x in metrics["recall_at_20"][name].items() if s in row
        }
    runs = {}
    for system in ("crops", *second):
        for query, _, doc, place, _, _ in _lines(tmp_path / "out/beir/trec" / f"run.{system}.trec"):
            runs.setdefault(system, {}).setdefault(query, {})[doc] = int(place)
    for query, fused in runs["crops_generative_fused"].items():
        one, other = (runs[system][query] for system in ("crops", "crops_generative"))
        assert len(one) == len(other) == CFG.depth
        scores = {d: sum(1 / (60 + r[d]) for r in (one, other) if d in r) for d in {*one, *other}}
        ours = [scores[doc] for doc in sorted(fused, key=fused.__getitem__)]
        assert ours == pytest.approx(sorted(scores.values(), reverse=True)[: len(ours)])


def test_ids_of_another_catalogue_are_refused(chain, tmp_path):
    root, systems, _metrics = chain
    shutil.copytree(systems["crops"], tmp_path / "crops")
    trie = semantic_ids.trie(np.arange(3)[:, None])
    generative.Generative(trie, 8).save(tmp_path / "crops/generative", ["a", "b", "c"])
    with pytest.raises(InputError, match="another catalogue"):
        evaluate.run(
            root / "mined", root / "gated", tmp_path / "out", CFG, systems={"crops": tmp_path / "crops"}
        )


def test_with_fusion_the_challenger_and_bm25_are_measured_as_one_ranking(chain, tmp_path):
    """From the two runs as they are written, by the definition of reciprocal ranks."""
    root, systems, metrics = chain
    evaluate.run(
        root / "mined",
        root / "gated",
        tmp_path / "out",
        CFG.model_copy(update={"fusion": True}),
        systems={"crops": systems["crops"]},
        truth=root / "truth",
    )
    runs = {}
    for system in ("crops", "bm25", "crops_bm25"):
        for query, _, doc, place, _, _ in _lines(tmp_path / "out/beir/trec" / f"run.{system}.trec"):
            runs.setdefault(system, {}).setdefault(query, {})[doc] = int(place)
    for query, fused in runs["crops_bm25"].items():
        one, other = (runs[system].get(query, {}) for system in ("crops", "bm25"))
        scores = {d: sum(1 / (60 + r[d]) for r in (one, other) if d in r) for d in {*one, *other}}
        ours = [scores[doc] for doc in sorted(fused, key=fused.__getitem__)]
        assert ours == pytest.approx(sorted(scores.values(), reverse=True)[: len(ours)])
    measured = artifacts.read_json(tmp_path / "out/metrics.json")["recall_at_100"]["truth"]
    assert set(measured) == {"bm25", "crops", "crops_bm25"}
    assert measured["crops"] == metrics["recall_at_100"]["truth"]["crops"]
