"""A base that is stored in half precision, as Qwen2.5 is, trains and is exported in float32."""

from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from crops import base_model
from crops.config.export import ExportConfig
from crops.discriminator import model as cross_encoder
from crops.retriever import encoder as encoders
from crops.retriever import step
from crops.stages.release import export
from tests.crops.retriever import toy_encoder as toy

TEXTS = [f"sourdough bread day {i} funny cat" for i in range(50)]


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = base_model.train_tokenizer(TEXTS)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    Qwen2ForCausalLM(config).to(request.param).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_every_weight_of_the_layers_moves_at_the_papers_rate(base):
    encoder = encoders.from_base(str(base), shared=False)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    assert {p.dtype for p in before.values()} == {torch.float32}
    plan = replace(toy.PLAN, learning_rate=2e-5)
    optimizer = step.optimizer_of(encoder, plan)
    ids, labels = toy.batch(encoder)
    for number in range(3):
        step.take(encoder, optimizer, ids, labels, plan, step=number)
    still = {
        name: float((p == before[name]).float().mean())
        for name, p in encoder.named_parameters()
        if ".layers." in name and "k_proj.bias" not in name
    }
    assert still
    assert max(still.values()) < 0.02, "a bfloat16 weight cannot take a step of 2e-5"


def test_it_is_exported(base, tmp_path):
    encoder = encoders.from_base(str(base))
    (tmp_path / "trained/encoder").mkdir(parents=True)
    encoder.save(tmp_path / "trained/encoder", system="crops")
    export.run(tmp_path / "trained", tmp_path / "onnx", ExportConfig())
    assert {p.dtype for p in encoders.load(tmp_path / "trained").parameters()} == {torch.float32}


def test_the_discriminators_weights_are_float32(base):
    built = cross_encoder.build(str(base), [], max_tokens=32, seed=0)
    assert {p.dtype for p in built.model.parameters()} == {torch.float32}
