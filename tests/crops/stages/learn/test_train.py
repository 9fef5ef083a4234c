"""Training on a toy log: batches mask what they must, a killed run resumes to the same curve, systems see
their own samples.
"""

import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from crops.config.train import TrainConfig
from crops.errors import ConfigError, InputError
from crops.retriever import encoder as encoders
from crops.retriever import generative, systems
from crops.retriever.batch import Batches, pairs
from crops.stages.learn import train
from crops.tables import artifacts, records
from tests.crops.retriever import bases

CFG = TrainConfig(base="small", steps=12, check_every=3, batch_queries=4, patience=9)


def toy(folder):
    docs = [{"doc_id": f"v{i}", "text": f"video about topic{i % 6} number {i}"} for i in range(36)]
    names = ("click", "exposed", "ranked", "filtered")
    rows = [
        {
            "query": f"topic{t}",
            "doc_id": f"v{t + 6 * k}",
            "perspective": names[k],
            "label": 4 - k,
            "theta": None,
        }
        for t in range(6)
        for k in range(4)
    ]
    origins = [{name: row[name] for name in ("query", "doc_id", "perspective")} for row in rows]
    valid = [{"query": f"topic{t}", "video_id": f"v{t + 24}", "later_query": "x"} for t in range(6)]
    asked = [
        {"query": f"topic{t}", "split": "train", "searches": 1, "clicks": 1, "users": 5} for t in range(6)
    ]
    folder.mkdir(exist_ok=True)
    for table, content in (
        (records.DOCUMENTS, docs),
        (records.SAMPLES, rows),
        (records.ORIGINS, origins),
        (records.VALID_QR, valid),
        (records.QUERIES, asked),
    ):
        artifacts.write(folder, table, pa.Table.from_pylist(content, schema=table.schema))
    artifacts.write_json(
        folder / "label.json",
        {
            "hierarchy": {
                "anchor_min_candidates": [4, 3],
                "labels": {name: 4 - k for k, name in enumerate(names)},
            }
        },
    )
    return folder


def test_a_known_sample_that_was_not_drawn_is_masked():
    """Query a knows t1..t3; drawn are 1 positive of 2. Query b drew t2: for a it is -1 or its own label,
    never 0.
    """
    data = pairs([("a", "t1", 4), ("a", "t2", 4), ("a", "t3", 1), ("b", "t2", 4), ("c", "t9", 4)])
    for step in range(20):
        batch = Batches(data, anchor_min=4, size=3, positives=1, lower=1, seed=0).at(step)
        for row, q in enumerate(batch.queries):
            known = set(data.text[data.query == q])
            assert all((batch.labels[row, c] != 0) == (t in known) for c, t in enumerate(batch.texts))


def test_a_query_without_label_zero_is_refused():
    with pytest.raises(ValueError, match="label-0"):
        Batches(
            pairs([("a", "t1", 4), ("b", "t1", 4)]), anchor_min=4, size=2, positives=4, lower=2, seed=0
        ).at(0)


@pytest.mark.parametrize("system", train.SYSTEMS)
def test_every_system_trains_and_loads(tmp_path, system):
    data = toy(tmp_path / "in")
    train.run(data, data, tmp_path / "out", CFG, system=system)
    vectors = encoders.load(tmp_path / "out").encode(["topic1", "topic2"], kind="query")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_small_tower_for_queries_is_trained_and_the_untouched_base_is_whole(tmp_path):
    data = toy(tmp_path / "in")
    base = str(bases.checkpoint(tmp_path / "pretrained"))
    cfg = CFG.model_copy(update={"base": base, "query_layers": 1, "steps": 3})
    layers = {}
    for system in ("crops", "base"):
        train.run(data, data, tmp_path / system, cfg, system=system)
        trained = encoders.load(tmp_path / system)
        layers[system] = [tower.config.num_hidden_layers for tower in trained.towers]
    assert layers == {"crops": [1, 2], "base": [2]}


def test_an_unknown_loss_is_a_config_error_that_names_the_key():
    with pytest.raises(ConfigError, match=r"TrainConfig\.loss is 'my_loss'.*h_infonce"):
        TrainConfig.parse({"loss": "my_loss"})


def test_the_setting_loss_is_what_the_systems_train_with(tmp_path):
    data = toy(tmp_path / "in")
    cfg = CFG.model_copy(update={"loss": "softmax_ce", "steps": 3})
    for system, loss in (("crops", "softmax_ce"), ("crops_paper", "h_infonce"), ("clicks", "info_nce")):
        train.run(data, data, tmp_path / system, cfg, system=system)
        assert artifacts.read_json(tmp_path / system / "train.json")["hierarchy"]["loss"] == loss


def test_a_run_that_diverges_names_the_learning_rate(tmp_path):
    data = toy(tmp_path / "in")
    with pytest.raises(ConfigError, match=r"^train clicks: scores hold NaN.*lower learning_rate"):
        train.run(
            data, data, tmp_path / "out", CFG.model_copy(update={"learning_rate": 1e30}), system="clicks"
        )


def test_too_small_a_batch_names_its_setting(tmp_path):
    data = toy(tmp_path / "in")
    rows = artifacts.read(data, records.SAMPLES).to_pylist()
    rows = [{**row, "query": f"topic{n % 2}", "doc_id": "v0"} for n, row in enumerate(rows)]
    artifacts.write(data, records.SAMPLES, pa.Table.from_pylist(rows[:2], schema=records.SAMPLES.schema))
    cfg = CFG.model_copy(update={"batch_queries": 2})
    with pytest.raises(ConfigError, match="raise batch_queries"):
        train.run(data, data, tmp_path / "out", cfg, system="crops")


def test_a_fault_of_the_program_keeps_its_trace(tmp_path, monkeypatch):
    data = toy(tmp_path / "in")

    def planted(*_args, **_kwargs):
        raise ValueError("planted")

    monkeypatch.setattr(torch.nn.functional, "normalize", planted)
    with pytest.raises(ValueError, match=r"^planted$"):
        train.run(data, data, tmp_path / "out", CFG, system="clicks")


@pytest.mark.parametrize("more", [{}, {"hard_negatives": 1, "hard_share": 0.5, "hard_refresh": True}])
def test_killed_run_ends_with_the_same_bytes(tmp_path, more):
    """Also where the hard samples are those of the encoder in training, which no checkpoint holds."""
    data, cfg = toy(tmp_path / "in"), CFG.model_copy(update=more)
    train.run(data, data, tmp_path / "whole", cfg, system="clicks")
    code = f"""
import os, signal, pathlib
from crops.config.train import TrainConfig
from crops.stages.learn import train
p = pathlib.Path({str(tmp_path)!r})
cfg = TrainConfig.from_json({cfg.model_dump_json()!r})
kill = lambda step, _: os.kill(os.getpid(), signal.SIGKILL) if step == 6 else None
train.run(p / "in", p / "in", p / "killed", cfg, system="clicks", log=kill)
"""
    died = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    steps = []
    train.run(data, data, tmp_path / "killed", cfg, system="clicks", log=lambda step, _: steps.append(step))
    assert steps == [9, 12]
    for name in ("train.json", "encoder/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_hard_samples_of_the_encoder_in_training_are_others(tmp_path):
    data = toy(tmp_path / "in")
    hard = {"hard_negatives": 2, "hard_margin": 2.0}
    for name, refresh in (("once", False), ("anew", True)):
        cfg = CFG.model_copy(update=hard | {"hard_refresh": refresh})
        train.run(data, data, tmp_path / name, cfg, system="clicks")
    once, anew = ((tmp_path / name / "encoder/model.safetensors").read_bytes() for name in ("once", "anew"))
    assert once != anew


@pytest.mark.parametrize("teacher", ["theta", "other"])
def test_a_teacher_changes_what_is_learnt(tmp_path, teacher):
    data = toy(tmp_path / "in")
    if teacher == "other":
        train.run(data, data, tmp_path / "other", CFG, system="clicks")
        teacher = str(tmp_path / "other" / "encoder")
    train.run(data, data, tmp_path / "plain", CFG)
    rows = artifacts.read(data, records.SAMPLES).to_pylist()
    judged = [row | {"theta": 0.2 * row["label"]} for row in rows]
    artifacts.write(data, records.SAMPLES, pa.Table.from_pylist(judged, schema=records.SAMPLES.schema))
    report = train.run(data, data, tmp_path / "out", CFG.model_copy(update={"teacher": teacher}))
    plain, taught = ((tmp_path / n / "encoder/model.safetensors").read_bytes() for n in ("plain", "out"))
    assert plain != taught
    noted = f"train: the teacher θ was asked about {len(rows)} of {len(rows)} samples"
    assert (noted in report.notes) == (teacher == "theta")


def test_what_a_team_has_without_this_is_neither_weighed_nor_taught(tmp_path):
    data = toy(tmp_path / "in")
    train.run(data, data, tmp_path / "plain", CFG, system="clicks")
    more = {"teacher": "theta", "weigh": ("age",)}
    train.run(data, data, tmp_path / "out", CFG.model_copy(update=more), system="clicks")
    plain, same = ((tmp_path / n / "encoder/model.safetensors").read_bytes() for n in ("plain", "out"))
    assert plain == same


def test_weights_of_a_log_without_evidence_name_the_setting(tmp_path):
    data = toy(tmp_path / "in")
    with pytest.raises(InputError, match=r"weigh is support, dwell.*no table candidates"):
        train.run(data, data, tmp_path / "out", CFG.model_copy(update={"weigh": ("support", "dwell")}))
    with pytest.raises(InputError, match=r"no table evidence; .crops augment. writes it where augment.evid"):
        train.run(data, data, tmp_path / "out", CFG.model_copy(update={"weigh": ("age",)}))


def test_what_was_held_out_or_dropped_is_never_irrelevant(tmp_path):
    """topic0's valid video stands under two ids, once as a click: neither trains it. A dropped feed pair is
    in doubt for `crops`, while `clicks`, which sees no feed, knows nothing of it.
    """
    data = toy(tmp_path / "in")
    add(data, records.DOCUMENTS, doc_id="twin", text="video about topic0 number 24")
    for table in (records.SAMPLES, records.ORIGINS):
        for query, doc_id in (("topic0", "twin"), ("topic1", "twin"), ("topic2", "v8"), ("topic1", "v8")):
            row = {"query": query, "doc_id": doc_id, "perspective": "click", "label": 4, "theta": None}
            add(data, table, **{name: row[name] for name in table.schema.names})
    artifacts.write(data, records.DROPPED, records.DROPPED.schema.empty_table())
    add(data, records.DROPPED, query="topic0", doc_id="v8", perspective="feed")
    labels = {name: 4 - k for k, name in enumerate(("click", "exposed", "ranked", "filtered"))}
    labels |= {"feed": 4, "reformulation": 5, "knowledge": 4}
    for system, dropped in (("crops", -1), ("clicks", None)):
        made = train.inputs_of(data, data, systems.SYSTEMS[system], labels).samples
        of = {
            (made.queries[q], made.texts[t]): n
            for q, t, n in zip(made.query, made.text, made.label.tolist(), strict=True)
        }
        assert of["topic0", "video about topic0 number 24"] == -1
        assert of["topic1", "video about topic0 number 24"] > 0
        assert of.get(("topic0", "video about topic2 number 8")) == dropped


def add(folder, table, **row):
    rows = [*artifacts.read(folder, table).to_pylist(), row]
    artifacts.write(folder, table, pa.Table.from_pylist(rows, schema=table.schema))


def test_the_length_follows_the_log_where_the_settings_leave_it_open():
    """Five passes over 64,000 queries at 64 a step are 5,000 steps, checked every 250th; a small log gets
    200 steps, a huge one 20,000.
    """

    def steps(queries, **settings):
        plan = train.plan_of(TrainConfig(base="small", **settings), "h_infonce", 1, queries=queries)
        return plan.steps, plan.horizon, plan.check_every

    assert steps(64_000) == (5_000, 5_000, 250)
    assert steps(64_000, epochs=1) == (1_000, 1_000, 50)
    assert steps(10) == (200, 200, 50)
    assert steps(10**9) == (20_000, 20_000, 1_000)
    assert steps(64_000, steps=12, check_every=3) == (12, 12, 3)


def test_a_length_that_hides_most_of_the_log_is_said(tmp_path):
    data, cfg = toy(tmp_path / "data"), CFG.model_copy(update={"steps": 1})
    told = train.run(data, data, tmp_path / "out", cfg, system="clicks").notes
    assert any("train: 1 steps of 4 queries see" in note for note in told)
    whole = train.run(data, data, tmp_path / "whole", CFG, system="clicks").notes
    assert not any("queries see" in note for note in whole)


def test_one_training_serves_several_widths(tmp_path):
    """The encoder says which; what has a training of its own, or none, was trained for none."""
    data = toy(tmp_path / "in")
    cfg = CFG.model_copy(update={"widths": (8,), "steps": 3})
    for system, widths in (("crops", [8]), ("clicks_mnrl", []), ("base", [])):
        train.run(data, data, tmp_path / system, cfg, system=system)
        assert artifacts.read_json(tmp_path / system / "encoder/encoder.json")["widths"] == widths


@pytest.mark.parametrize(
    ("recalls", "kept"),
    [
        ([0.2, 0.9, 0.3, 0.3, 0.3], 3),  # far better at step 3, for every query
        ([0.2, 0.61, 0.6, 0.6, 0.6], 12),  # better by less than the queries differ
    ],
)
def test_another_step_than_the_last_is_kept_only_where_validation_can_tell(
    tmp_path, monkeypatch, recalls, kept
):
    data, mean, off = toy(tmp_path / "in"), iter(recalls), np.random.default_rng(0)

    def planted(valid, _encoder, ranks):
        assert ranks.count == 1
        return next(mean) + 0.02 * off.standard_normal(len(valid.queries))

    monkeypatch.setattr(train.train.Validation, "recalls", planted)
    told = train.run(data, data, tmp_path / "out", CFG, system="clicks")
    assert artifacts.read_json(tmp_path / "out/train.json")["best_step"] == told.numbers["best_step"] == kept
    assert any("length: cannot tell" in note for note in told.notes) == (kept == 12)


@pytest.mark.parametrize(("gain", "anchor"), [(0.3, 3), (0.0, 4)])
def test_the_wider_hierarchy_is_taken_only_where_validation_can_tell(tmp_path, monkeypatch, gain, anchor):
    """Anchors from label 3 are better for everybody, or for half of the people and worse for the others; two
    seeds of either say the same.
    """
    data, fit, trained = toy(tmp_path / "in"), train.train.fit, []

    def followed(encoder, batches, valid, plan, **more):
        trained.append((plan.anchor_min, plan.seed))
        return fit(encoder, batches, valid, plan, **more)

    def planted(valid, _encoder, ranks):
        others = np.where(np.arange(len(valid.queries)) % 2, 0.2, -0.19)
        return 0.5 + (trained[-1][0] == 3) * (gain + others)

    monkeypatch.setattr(train.train, "fit", followed)
    monkeypatch.setattr(train.train.Validation, "recalls", planted)
    told = train.run(data, data, tmp_path / "out", CFG, system="crops")
    assert trained == [(4, 0), (4, 1), (3, 0), (3, 1), (anchor, 0)]
    assert artifacts.read_json(tmp_path / "out/train.json")["hierarchy"]["anchor_min"] == anchor
    assert any("hierarchy: cannot tell" in note for note in told.notes) == (anchor == 4)


def test_the_settings_of_hard_queries_and_negatives_reach_the_batches(tmp_path):
    """Two more texts a query are encoded; a training that goes by ranks draws the same ones again."""
    data, encodes = toy(tmp_path / "in"), {}
    few, hard = {"positives": 1, "lower": 0, "steps": 3}, {"hard_share": 0.5, "hard_negatives": 2}
    for name, settings in (("plain", few), ("hard", few | hard), ("again", few | hard)):
        train.run(data, data, tmp_path / name, CFG.model_copy(update=settings), system="clicks")
        encodes[name] = artifacts.read_json(tmp_path / name / "train.json")["encodes"]
    assert encodes["plain"] < encodes["hard"] == encodes["again"]
    for name in ("train.json", "encoder/model.safetensors"):
        assert (tmp_path / "hard" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_with_the_setting_the_challenger_alone_gets_a_second_retriever_and_stays_as_it_is(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(generative, "LEAST_STEPS", 3)
    monkeypatch.setattr(generative, "PASSES", 1)
    folder = toy(tmp_path / "in")
    wanted = CFG.model_copy(update={"generative": True})
    for name, cfg, system in (("off", CFG, "crops"), ("on", wanted, "crops"), ("clicks", wanted, "clicks")):
        train.run(folder, folder, tmp_path / name, cfg, system=system)
    facts = {name: artifacts.read_json(tmp_path / name / "train.json") for name in ("off", "on", "clicks")}
    assert facts["on"].pop("generative")["steps"] == 3
    assert facts["on"] == facts["off"]
    assert "generative" not in facts["clicks"]
    files = {
        name: {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in facts
    }
    assert {p.parts[0] for p in files["on"] - files["off"]} == {"generative"}
    assert files["off"] == files["clicks"]
    for path in files["off"] - {p for p in files["off"] if p.suffix == ".json"}:
        assert (tmp_path / "on" / path).read_bytes() == (tmp_path / "off" / path).read_bytes()
    graded = artifacts.read_json(folder / "label.json")["hierarchy"]["labels"]
    inputs = train.inputs_of(folder, folder, systems.SYSTEMS["crops"], graded)
    model = generative.load(tmp_path / "on/generative", inputs.valid.texts)
    asked = encoders.load(tmp_path / "on").encode(["topic1"], kind="query")
    assert sorted(model.rank(asked, 36)[0]) == list(range(36))


def test_checks_rank_a_sample_of_a_catalogue_that_is_larger_than_the_setting(tmp_path, monkeypatch):
    """20 of 36 documents at every check, and all 36 once before and once after."""
    sizes, plain = [], encoders.Encoder.encode

    def counted(self, texts, *, kind, **given):
        sizes.append(len(texts)) if kind == "document" else None
        return plain(self, texts, kind=kind, **given)

    monkeypatch.setattr(encoders.Encoder, "encode", counted)
    cfg = CFG.model_copy(update={"check_documents": 20, "hard_share": 0.0})
    report = train.run(toy(tmp_path / "toy"), tmp_path / "toy", tmp_path / "out", cfg, system="clicks")
    assert sizes[0] == sizes[-1] == 36
    assert set(sizes[1:-1]) == {20}
    history = artifacts.read_json(tmp_path / "out/train.json")
    assert history["whole_recall"] == report.numbers["whole_valid_recall_at_100"] == 1.0
    assert any("checks ranked a sample" in note for note in report.notes)
    whole = train.run(tmp_path / "toy", tmp_path / "toy", tmp_path / "all", CFG, system="clicks")
    assert "whole_valid_recall_at_100" not in whole.numbers
