"""Which weights train and at which rate, by hand on a BERT and a Qwen2 of two layers; merged adapters leave
nothing but other weights.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from crops.config.export import ExportConfig
from crops.errors import ConfigError
from crops.release.encoder import OnnxEncoder
from crops.retriever import checkpoint, finetuning, step
from crops.retriever import encoder as encoders
from crops.stages.release import export
from tests.crops.retriever import bases
from tests.crops.retriever import toy_encoder as toy
from tests.crops.retriever.test_encoder_bases import FAMILIES
from tests.crops.retriever.test_encoder_bases import checkpoint as base_of

# By how the names of their weights begin: 0 the tables, n the n-th layer, 2 also for what follows the last.
DEPTHS = {
    "BERT": {"embeddings.": 0, "encoder.layer.0.": 1, "encoder.layer.1.": 2, "pooler.": 2},
    "Qwen2": {"embed_tokens.": 0, "layers.0.": 1, "layers.1.": 2, "norm.": 2},
}
FEW = ["BERT", "Qwen2"]


def of(folder, family, dtype=torch.float32, **settings):
    return encoders.from_base(str(base_of(folder, family, dtype)), toy.TEXTS, **settings)


def depth_of(family, name):
    (depth,) = (n for start, n in DEPTHS[family].items() if name.removeprefix("query.").startswith(start))
    return depth


def taken(encoder, plan, steps=3):
    """The weights before and after some steps, by name."""
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    optimizer, batch = step.optimizer_of(encoder, plan), toy.batch(encoder)
    for number in range(steps):
        step.take(encoder, optimizer, *batch, plan, step=number)
    return before, dict(encoder.named_parameters())


@pytest.mark.parametrize("family", FEW)
def test_the_groups_by_hand(tmp_path, family):
    """At a decay of 1/2 the tables of a base of two layers train at a quarter of the rate, the first layer at
    a half; norms and biases are not pulled to zero; the temperature has its own rate. A step of the schedule
    scales all alike.
    """
    encoder = of(tmp_path, family)
    plan = replace(toy.PLAN, learning_rate=0.4, layer_decay=0.5, weight_decay=0.1, temperature_rate=7.0)
    optimizer = step.optimizer_of(encoder, plan)
    names = {id(p): name for name, p in encoder.named_parameters()}
    grouped = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert grouped.keys() == set(names.values())
    assert (grouped["log_tau"]["lr"], grouped.pop("log_tau")["weight_decay"]) == (7.0, 0.0)
    for name, group in grouped.items():
        assert group["lr"] == 0.4 * [0.25, 0.5, 1.0][depth_of(family, name)], name
        spared = name.endswith("bias") or "norm" in name.lower()
        assert group["weight_decay"] == (0.0 if spared else 0.1), name
    step.take(encoder, optimizer, *toy.batch(encoder), plan, step=5)  # half of the way down
    assert {group["lr"] / group["full"] for group in optimizer.param_groups} == {step.rate(5, plan)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_depth_for_every_weight(tmp_path, family):
    """A layer's number stands in the name of its weights; tables are below, norms and poolers above."""
    tower = of(tmp_path, family).query
    depths = {name: finetuning.depth(tower, name) for name, _ in tower.named_parameters()}
    assert set(depths.values()) == {0, 1, 2}
    for name, depth in depths.items():
        layers = [int(part) for part in name.split(".") if part.isdecimal()][:1]
        tables = any(word in name for word in ("embed", "wte", "wpe", "shared", "encoder.relative"))
        assert depth == (layers[0] + 1 if layers else 0 if tables else 2), name


@pytest.mark.parametrize("family", [family for family in FAMILIES if "static" not in family])
def test_a_small_tower_for_queries_is_the_lowest_layers(tmp_path, family):
    """Hugging Face's own hidden states of the first layer are the judge, before the norm that follows the
    last; documents keep the whole base. Saved, read back, exported and by sentence-transformers it is the
    same.
    """
    whole, encoder = of(tmp_path / "base", family), of(tmp_path / "base", family)
    finetuning.shorten(encoder, layers=1)
    kept = dict(encoder.query.named_parameters())
    before = dict(whole.query.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in kept.items())
    assert {name for name in before if name not in kept} == {
        name for name in before if finetuning.depth(whole.query, name) == 2 and any(map(str.isdecimal, name))
    }
    ids, mask = encoder.pad(encoder.tokenize(toy.TEXTS))
    seen = []
    final = [m for name, m in encoder.query.named_children() if name.endswith(("norm", "ln_f"))]
    for norm in final:
        norm.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.inference_mode():
        states = whole.query.eval()(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        hidden = encoder.query.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    first = states.hidden_states[1]
    if family != "T5 encoder":  # whose norm lies deeper
        np.testing.assert_allclose((seen[0] if seen else hidden)[mask > 0], first[mask > 0], atol=1e-6)
    vectors = {kind: encoder.encode(toy.TEXTS, kind=kind) for kind in ("query", "document")}
    np.testing.assert_array_equal(vectors["document"], whole.encode(toy.TEXTS, kind="document"))
    folder = bases.exported(encoder, tmp_path)
    again = encoders.load(tmp_path / "trained")
    for kind in vectors:
        np.testing.assert_allclose(again.encode(toy.TEXTS, kind=kind), vectors[kind], atol=2e-6)
    assert bases.least_cosine(bases.library(folder, toy.TEXTS), vectors["query"]) >= bases.LEAST_COSINE
    warm = encoders.from_base(str(tmp_path / "trained/encoder"), shared=False)
    finetuning.shorten(warm, layers=1)
    np.testing.assert_allclose(warm.encode(toy.TEXTS, kind="document"), vectors["document"], atol=2e-6)


def test_a_small_tower_trains_beside_the_whole_one(tmp_path):
    encoder = of(tmp_path, "BERT")
    finetuning.shorten(encoder, layers=1)
    before, after = taken(encoder, toy.PLAN)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"query", "document", "log_tau"}


@pytest.mark.parametrize("saving", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("family", FEW)
def test_frozen_weights_stay_to_the_bit_and_the_others_move(tmp_path, family, saving):
    """Also where the towers trade time for memory, which has a kind that stops at frozen tables."""
    encoder = of(tmp_path, family, shared=False)
    if saving:
        encoder.save_memory()
    finetuning.freeze(encoder, layers=1)
    before, after = taken(encoder, replace(toy.PLAN, weight_decay=0.1))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    frozen = {
        name for name in before if name != "log_tau" and depth_of(family, name.removeprefix("document.")) <= 1
    }
    assert frozen <= kept
    # Not moved either: what the loss does not see, BERT's pooler and biases of keys, which softmax ignores.
    assert all("pooler" in name or "key.bias" in name for name in kept - frozen)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("BERT", torch.float32), ("Qwen2", torch.bfloat16)],
    ids=["BERT-float32", "Qwen2-bfloat16"],
)
def test_adapters_train_in_float32_and_are_merged(tmp_path, family, dtype):
    """The base's weights stay to the bit until the end; merged, saved, read back and as ONNX the vectors are
    those of the adapters beside the weights, and the folder is one of the base's architecture.
    """
    encoder = of(tmp_path / "base", family, dtype, shared=False)
    names = set(encoder.state_dict())
    untrained = encoder.encode(toy.TEXTS, kind="query")
    finetuning.adapt(encoder, rank=2, alpha=4.0, seed=0)
    np.testing.assert_array_equal(encoder.encode(toy.TEXTS, kind="query"), untrained)  # begin as nothing
    before, after = taken(encoder, toy.PLAN)
    trained = {name for name, p in after.items() if p.requires_grad}
    assert {part for name in trained for part in ("lora_A", "lora_B") if part in name} == {"lora_A", "lora_B"}
    assert all("lora" in name or name == "log_tau" for name in trained)
    assert {after[name].dtype for name in trained} == {torch.float32}
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in trained if "pooler" not in name
    }
    apart = {kind: encoder.encode(toy.TEXTS, kind=kind) for kind in ("query", "document")}
    assert np.abs(apart["query"] - untrained).max() > 1e-3
    (tmp_path / "trained/encoder").mkdir(parents=True)
    encoder.save(tmp_path / "trained/encoder", system="crops")
    assert set(encoder.state_dict()) == names
    export.run(tmp_path / "trained", tmp_path / "onnx", ExportConfig())
    again = encoders.load(tmp_path / "trained")
    for kind, vectors in apart.items():
        np.testing.assert_allclose(again.encode(toy.TEXTS, kind=kind), vectors, atol=2e-6)
    np.testing.assert_allclose(OnnxEncoder(tmp_path / "onnx").encode(toy.TEXTS), apart["query"], atol=1e-5)


def test_the_adapters_share_of_the_sum_by_hand(tmp_path):
    """Merged is W + alpha / rank * B A: here 6 / 3 times."""
    encoder = of(tmp_path, "Qwen2")
    finetuning.adapt(encoder, rank=3, alpha=6.0, seed=0)
    weights = {name: p.detach().clone() for name, p in taken(encoder, toy.PLAN, steps=1)[1].items()}
    at = "query.layers.0.mlp.up_proj"
    expected = weights[f"{at}.base_layer.weight"] + 2 * (
        weights[f"{at}.lora_B.default.weight"] @ weights[f"{at}.lora_A.default.weight"]
    )
    encoder.merge()
    torch.testing.assert_close(encoder.state_dict()[f"{at}.weight"], expected)


def test_adapters_of_a_killed_run_are_taken_up_again(tmp_path):
    def fresh():
        encoder = of(tmp_path / "base", "Qwen2")
        finetuning.adapt(encoder, rank=2, alpha=4.0, seed=0)
        return encoder, step.optimizer_of(encoder, toy.PLAN)

    encoder, optimizer = fresh()
    state = {"step": 1, "best_step": 1}
    step.take(encoder, optimizer, *toy.batch(encoder), toy.PLAN, step=0)
    checkpoint.save(encoder, optimizer, tmp_path / "kept", state)
    again, resumed = fresh()
    assert checkpoint.resume(again, resumed, tmp_path / "kept") == state
    for each, moments in ((encoder, optimizer), (again, resumed)):
        step.take(each, moments, *toy.batch(each), toy.PLAN, step=1)
    torch.testing.assert_close(dict(again.named_parameters()), dict(encoder.named_parameters()))


def test_what_a_base_cannot_do_is_said(tmp_path, monkeypatch):
    encoder = of(tmp_path, "BERT")
    with pytest.raises(ConfigError, match=r"^train.frozen_layers is 3, but the base has 2 layers$"):
        finetuning.freeze(encoder, layers=3)
    with pytest.raises(ConfigError, match=r"^train.query_layers is 3, but the base has 2 layers$"):
        finetuning.shorten(encoder, layers=3)
    none = encoders.Encoder(torch.nn.Embedding(2, 2), encoder.tokenizer, pooling="mean")
    with pytest.raises(ConfigError, match="no linear map"):
        finetuning.adapt(none, rank=2, alpha=4.0, seed=0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="extra lora"):
        finetuning.adapt(encoder, rank=2, alpha=4.0, seed=0)
