"""A step against autograd on the formula's matrix; cached and joint gradients against the plain ones; what is
refused.
"""

import os
import socket
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from crops.errors import ConfigError, InputError
from crops.retriever import checkpoint, step
from crops.retriever import encoder as encoders
from crops.retriever.loss import LOWER, h_infonce, info_nce, softmax_ce
from crops.retriever.ranks import Ranks, joined
from tests.crops.retriever import toy_encoder as toy


def close(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-12)


def run(plan: step.Plan, *, dropout: float = 0.0, number: int = 0) -> tuple[float, dict]:
    encoder = toy.encoder(dropout=dropout)
    loss = step.gradients(encoder, *toy.batch(encoder), plan, step=number)
    return loss, toy.gradients(encoder)


@pytest.mark.parametrize("loss", ["h_infonce", "info_nce", "softmax_ce"])
def test_a_step_is_the_loss_of_the_whole_matrix(loss):
    plan = replace(toy.PLAN, loss=loss, anchor_min=4 if loss == "info_nce" else 1)
    encoder = toy.encoder()
    ids, labels = toy.batch(encoder)
    q, d = encoder(*encoder.pad(ids[0])), encoder(*encoder.pad(ids[1]))
    scores = q @ d.T / encoder.log_tau.exp()
    function = {"h_infonce": h_infonce, "info_nce": info_nce, "softmax_ce": softmax_ce}[loss](
        scores, torch.tensor(labels)
    )
    function.backward()
    found, grads = run(plan)
    assert found == pytest.approx(float(function.detach()), rel=1e-12)
    close(grads, toy.gradients(encoder))


@pytest.mark.parametrize("loss", [LOWER, h_infonce], ids=["matrix", "function"])
def test_a_loss_of_ones_own_is_a_value_of_the_plan(loss):
    found, grads = run(replace(toy.PLAN, loss=loss))
    named, same = run(toy.PLAN)
    assert found == pytest.approx(named, rel=1e-12)
    close(grads, same)


def test_cached_gradients_are_the_plain_ones():
    plain, grads = run(toy.PLAN)
    cached, same = run(replace(toy.PLAN, cache_tokens=16))
    assert cached == pytest.approx(plain, rel=1e-12)
    close(grads, same)


def test_cached_gradients_repeat_the_dropout_of_their_group(monkeypatch):
    groups = encoders.Encoder.groups
    monkeypatch.setattr(encoders.Encoder, "groups", lambda self, ids, tokens=None: groups(self, ids, 40))
    plain, grads = run(toy.PLAN, dropout=0.3)
    cached, same = run(replace(toy.PLAN, cache_tokens=40), dropout=0.3)
    assert cached == plain
    close(grads, same)
    assert run(toy.PLAN, dropout=0.3, number=1)[0] != plain
    monkeypatch.setattr(
        step, "_dropout_of", lambda *_: nullcontext()
    )  # planted: other dropout the second time
    encoder_gradient = run(replace(toy.PLAN, cache_tokens=40), dropout=0.3)[1][
        "query.embeddings.word_embeddings.weight"
    ]
    assert not torch.allclose(encoder_gradient, grads["query.embeddings.word_embeddings.weight"], rtol=1e-3)


def test_shares_cover_every_row_once_and_even_out_the_lengths():
    lengths = [9, 1, 5, 5, 2, 8, 3]
    shares = Ranks(1, 3).shares(lengths)
    assert sorted(i for rows in shares for i in rows) == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def _rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with joined() as ranks:
        for name, plan in {"plain": toy.PLAN, "cached": replace(toy.PLAN, cache_tokens=16)}.items():
            encoder = toy.encoder()
            loss = step.gradients(encoder, *toy.batch(encoder), plan, step=0, ranks=ranks)
            save_file(
                {"loss": torch.tensor(loss, dtype=torch.float64), **toy.gradients(encoder)},
                f"{folder}/{name}-{rank}",
            )
        try:
            ranks.check_same({"batch_queries": 64 - rank})
        except ValueError as error:
            Path(folder, f"refused-{rank}").write_text(str(error))


def test_two_ranks_have_the_gradients_of_one(tmp_path):
    """7 queries and 17 texts: the ranks' shares differ in size. And ranks with other batch sizes are refused,
    on both.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, (port, str(tmp_path)), nprocs=2)
    loss, grads = run(toy.PLAN)
    for name in ("plain-0", "plain-1", "cached-0", "cached-1"):
        found = load_file(tmp_path / name)
        assert float(found.pop("loss")) == pytest.approx(loss, rel=1e-12)
        close(grads, found)
    for rank in (0, 1):
        words = (tmp_path / f"refused-{rank}").read_text()
        assert words.startswith(
            "rank 1 has batch_queries 63, rank 0 has 64: start every rank with the same command"
        )


def test_nan_and_foreign_labels_say_what_to_do():
    encoder = toy.encoder()
    ids, labels = toy.batch(encoder)
    labels[0, 0] = 6
    with pytest.raises(ValueError, match=r"expected -1\.\.5"):
        step.gradients(encoder, ids, labels, toy.PLAN, step=0)
    labels[0, 0] = 5
    with torch.no_grad():
        encoder.query.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"NaN.*lower learning_rate"):
        step.gradients(encoder, ids, labels, toy.PLAN, step=0)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    state = {"step": 1, "best_step": 1}
    small, wide = toy.encoder(), toy.encoder(width=64)
    optimizer = step.optimizer_of(small, toy.PLAN)
    step.take(small, optimizer, *toy.batch(small), toy.PLAN, step=0)
    checkpoint.save(small, optimizer, tmp_path, state)
    with pytest.raises(InputError, match=r"another architecture.*remove the folder"):
        checkpoint.resume(wide, step.optimizer_of(wide, toy.PLAN), tmp_path)
    again = toy.encoder()
    assert checkpoint.resume(again, step.optimizer_of(again, toy.PLAN), tmp_path) == state
    close(dict(again.named_parameters()), dict(small.named_parameters()))


def test_attention_by_name():
    """eager and sdpa are the same numbers; a kernel that is not here, or no kernel at all, is a line about
    the setting.
    """
    encoder = toy.encoder()
    ids = encoder.pad(encoder.tokenize(toy.TEXTS[:4]))
    vectors = []
    for name in ("eager", "sdpa"):
        encoder.attend_by(name)
        assert encoder.query.config._attn_implementation == name
        vectors.append(encoder(*ids).detach())
    torch.testing.assert_close(vectors[0], vectors[1])
    names = ["no_such_kernel"] if torch.cuda.is_available() else ["no_such_kernel", "flash_attention_2"]
    for name in names:
        with pytest.raises(ConfigError, match=f"attn_implementation '{name}'"):
            encoder.attend_by(name)


def test_decay_spares_norms_and_biases_and_a_long_gradient_is_shortened():
    """What decays are matrices and tables alone; a step leaves a gradient of the clip's length, the
    temperature's apart.
    """
    encoder = toy.encoder()
    plan = replace(toy.PLAN, weight_decay=1.0, clip=0.25)
    optimizer = step.optimizer_of(encoder, plan)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1.0, 0.0, 0.0]
    assert [{p.ndim for p in group["params"]} for group in optimizer.param_groups] == [{2}, {1}, {0}]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(encoder.parameters()))
    step.take(encoder, optimizer, *toy.batch(encoder), plan, step=0)
    lengths = [p.grad.norm() for n, p in encoder.named_parameters() if n != "log_tau" and p.grad is not None]
    assert float(torch.stack(lengths).norm()) == pytest.approx(0.25, rel=1e-4)
