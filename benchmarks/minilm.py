"""An encoder of MiniLM's size (6 layers of 384, 12 heads) with random weights, and a release of it: what
serving costs, not what it finds. Shared by the benchmarks of serving; prints nothing.
"""

import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from crops.base_model import train_tokenizer
from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.retriever.encoder import Encoder
from crops.stages.release import export, index, register
from tests.crops.stages import toy_release as toy

TOPICS = 1000


def documents(count: int) -> dict[str, str]:
    """Id -> text of `count` videos of TOPICS subjects."""
    return {
        f"v{n}": f"subject{n % TOPICS} how to part{n // TOPICS} | keyword{n % 77} clip{n % 13}"
        for n in range(count)
    }


def exported(folder: Path, *, layers: int = 6, width: int = 384) -> Path:
    """The encoder as `crops export` writes it."""
    tokenizer = train_tokenizer(documents(TOPICS).values())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=4 * width,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    encoder = Encoder(BertModel(config, add_pooling_layer=False), tokenizer, pooling="mean").eval()
    (folder / "trained/encoder").mkdir(parents=True)
    encoder.save(folder / "trained/encoder", system="crops")
    export.run(folder / "trained", folder / "onnx", ExportConfig())
    return folder / "onnx"


def release(folder: Path, count: int) -> Path:
    """A release of `count` documents, as a registry would hand it out."""
    onnx = exported(folder)
    mined = toy.write(
        folder / "mined",
        DOCUMENTS=[{"doc_id": i, "text": text} for i, text in documents(count).items()],
        QUERIES=toy.queries(),
    )
    toy.write(folder / "samples", ORIGINS=[{"query": "subject0", "doc_id": "v0", "perspective": "click"}])
    index.run(onnx, mined, folder / "index", IndexConfig())
    made = folder / "release"
    made.mkdir()
    register.assemble(made, (onnx, folder / "index", mined, folder / "samples"), RegisterConfig(probes=8))
    return made
