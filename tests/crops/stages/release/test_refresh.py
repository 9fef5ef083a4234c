"""New videos into a release: extended or rebuilt, it finds what an index built from nothing finds; a killed
run is made good.
"""

import numpy as np
import pytest

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.errors import InputError, ServiceError
from crops.release import index as indexes
from crops.release import layout, manifest
from crops.release.encoder import OnnxEncoder
from crops.services.registry import Registry
from crops.stages.release import adopt, champion, export, index, refresh
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy

CFG, REGISTER = IndexConfig(), RegisterConfig(probes=8, max_training_pairs=5)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """A champion of half the catalogue, as the registry gives it back; the rest of the catalogue."""
    root = tmp_path_factory.mktemp("refresh")
    texts = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    old = dict(list(texts.items())[:-20])
    uri = toy.champion(root, old)
    champion.run(root / "champion", REGISTER, registry=uri)
    return root, uri, old, texts


def as_built_from_nothing(root, folder, texts):
    """Every document of `texts` is found at the place where an index built from nothing has it."""
    mined = toy.write(folder / "mined", DOCUMENTS=[{"doc_id": i, "text": text} for i, text in texts.items()])
    index.run(root / "onnx", mined, folder / "again", CFG)
    queries = OnnxEncoder(root / "onnx").encode([f"subject{t} part{t}" for t in range(toy.TOPICS)])
    return [found(place, queries) for place in (folder / "out/release", folder / "again")]


def found(place, queries):
    import faiss
    import pyarrow.parquet as pq

    ids = pq.read_table(place / "doc_ids.parquet")["doc_id"].to_pylist()
    scores, rows = faiss.read_index(str(place / "index.faiss")).search(queries, 20)
    return [
        {ids[r]: round(float(s), 5) for r, s in zip(*row, strict=True)}
        for row in zip(rows, scores, strict=True)
    ]


def test_with_new_videos_the_index_is_extended(registered, tmp_path):
    root, _, _old, texts = registered
    logs = toy.catalogue(tmp_path / "logs", texts)
    report = refresh.run(root / "champion", logs, tmp_path / "out", CFG)
    assert report.numbers == {"documents": len(texts), "added": 20, "changed": 0, "removed": 0}
    assert artifacts.read_json(tmp_path / "out/refresh.json")["how"] == "extended"
    assert artifacts.read(tmp_path / "out/release", records.DOCUMENTS)["doc_id"].to_pylist() == sorted(texts)
    extended, again = as_built_from_nothing(root, tmp_path, texts)
    assert [list(row.values()) for row in extended] == [list(row.values()) for row in again]
    assert layout.problem(tmp_path / "out/release") is None
    for name in ("query_encoder.onnx", "fingerprint.json"):
        assert (tmp_path / "out/release" / name).read_bytes() == (root / "champion" / name).read_bytes()


def test_with_changed_and_removed_videos_it_is_rebuilt_and_only_the_changed_are_encoded(
    registered, tmp_path, monkeypatch
):
    root, _, old, _ = registered
    kept = dict(list(old.items())[5:]) | {toy.doc(3, 3): "something else entirely"}
    encoded, plain = [], index.encoded
    monkeypatch.setattr(
        index,
        "encoded",
        lambda encoder, texts, *, batch: encoded.extend(texts) or plain(encoder, texts, batch=batch),
    )
    refresh.run(root / "champion", toy.catalogue(tmp_path / "logs", kept), tmp_path / "out", CFG)
    about = artifacts.read_json(tmp_path / "out/refresh.json")
    assert [about[k] for k in ("how", "added", "changed", "removed")] == ["rebuilt", 0, 1, 5]
    assert encoded == ["something else entirely"]
    monkeypatch.undo()
    rebuilt, again = as_built_from_nothing(root, tmp_path, dict(sorted(kept.items())))
    assert [list(row.values()) for row in rebuilt] == [list(row.values()) for row in again]


def test_an_index_that_keeps_codes_is_never_built_from_them(tmp_path):
    """Four bits a dimension: what comes back is not what was encoded, so every document is encoded again, and
    is exact.
    """
    texts = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    coded = IndexConfig(factories={1000: "SQ4"})
    champion.run(
        tmp_path / "champion",
        REGISTER,
        registry=toy.champion(tmp_path, dict(list(texts.items())[:-20]), cfg=coded),
    )
    refresh.run(tmp_path / "champion", toy.catalogue(tmp_path / "logs", texts), tmp_path / "out", CFG)
    assert artifacts.read_json(tmp_path / "out/refresh.json")["how"] == "encoded anew"
    rebuilt, again = as_built_from_nothing(tmp_path, tmp_path, texts)
    assert [list(row.values()) for row in rebuilt] == [list(row.values()) for row in again]


def test_an_index_that_refines_by_16_bits_is_extended_as_it_is(tmp_path):
    """As of a million documents: what it gives back is near enough to what was encoded, and stays."""
    texts = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    half = IndexConfig(factories={1000: "IVF4,PQ8x4fs,Refine(SQfp16)"})
    uri = toy.champion(tmp_path, dict(list(texts.items())[:-20]), cfg=half)
    champion.run(tmp_path / "champion", REGISTER, registry=uri)
    refresh.run(tmp_path / "champion", toy.catalogue(tmp_path / "logs", texts), tmp_path / "out", half)
    about = artifacts.read_json(tmp_path / "out/refresh.json")
    assert (about["how"], about["factory"]) == ("extended", half.factories[1000])
    assert about["recall_against_exact"] > 0.95
    before, after = (indexes.of_release(p) for p in (tmp_path / "champion", tmp_path / "out/release"))
    kept = len(before.ids)
    np.testing.assert_array_equal(before.inner.reconstruct_n(0, kept), after.inner.reconstruct_n(0, kept))


def test_many_new_videos_or_another_kind_of_index_mean_a_rebuild(registered, tmp_path):
    root, _, _old, texts = registered
    logs = toy.catalogue(tmp_path / "logs", texts)
    for n, cfg in enumerate(
        (IndexConfig(rebuild_above=0.05), IndexConfig(factories={170: "Flat", 1000: "IVF4,Flat"}))
    ):
        refresh.run(root / "champion", logs, tmp_path / str(n), cfg)
        assert artifacts.read_json(tmp_path / str(n) / "refresh.json")["how"] == "rebuilt"


def test_an_encoder_of_another_index_is_refused(registered, tmp_path):
    root, _, _old, texts = registered
    other = toy.trained(tmp_path / "other", seed=9)
    export.run(other, tmp_path / "onnx", ExportConfig())
    (tmp_path / "release").mkdir()
    import shutil

    shutil.copytree(root / "champion", tmp_path / "release", dirs_exist_ok=True)
    shutil.copyfile(tmp_path / "onnx/query_encoder.onnx", tmp_path / "release/query_encoder.onnx")
    layout.seal(tmp_path / "release")
    with pytest.raises(InputError, match="do not belong together"):
        refresh.run(tmp_path / "release", toy.catalogue(tmp_path / "logs", texts), tmp_path / "out", CFG)
    with pytest.raises(InputError, match="no champion"):
        refresh.run(tmp_path / "logs", tmp_path / "logs", tmp_path / "out", CFG)


def test_it_takes_the_champions_place_once(registered, tmp_path, monkeypatch):
    """Killed between registry and alias it ends with one version more; a second run with nothing new names
    that one.
    """
    root, uri, _old, texts = registered
    logs = toy.catalogue(tmp_path / "logs", texts)
    served = str(tmp_path / "manifest.json")
    refresh.run(root / "champion", logs, tmp_path / "refreshed", CFG)
    release = manifest.Release(uri="u", model="m", files="f", checksum="0" * 64)
    manifest.write(served, manifest.Manifest(generation=1, arms={"control": release, "treatment": release}))
    with pytest.raises(ServiceError, match="a rollout is running"):
        adopt.run(tmp_path / "refreshed", tmp_path / "adopted", REGISTER, uri=uri, served=served)
    manifest.write(served, manifest.Manifest(generation=2, arms={"control": release}))

    class Killed(BaseException):
        pass

    def killed(*_a, **_k):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "move", killed)
        with pytest.raises(Killed):
            adopt.run(tmp_path / "refreshed", tmp_path / "adopted", REGISTER, uri=uri, served=served)
    assert Registry(uri, "crops").holder("champion") == "1"
    adopt.run(tmp_path / "refreshed", tmp_path / "adopted", REGISTER, uri=uri, served=served)
    assert Registry(uri, "crops").holder("champion") == "2"
    assert artifacts.read_json(tmp_path / "adopted/release.json")["uri"] == "models:/crops/2"
    champion.run(tmp_path / "champion", REGISTER, registry=uri)
    refresh.run(tmp_path / "champion", logs, tmp_path / "second", CFG)
    assert artifacts.read_json(tmp_path / "second/refresh.json")["how"] == "nothing changed"
    adopt.run(tmp_path / "second", tmp_path / "adopted-2", REGISTER, uri=uri)
    assert artifacts.read_json(tmp_path / "adopted-2/release.json")["uri"] == "models:/crops/2"
    with pytest.raises(
        ServiceError, match="somebody else moved it"
    ):  # what was refreshed is no longer the champion
        late = toy.catalogue(tmp_path / "late", {**texts, "new": "a new video"})
        refresh.run(root / "champion", late, tmp_path / "third", CFG)
        adopt.run(tmp_path / "third", tmp_path / "adopted-3", REGISTER, uri=uri)


def test_a_catalogue_without_texts_is_refused(registered, tmp_path):
    root = registered[0]
    with pytest.raises(InputError, match="no video with a text"):
        refresh.run(root / "champion", toy.catalogue(tmp_path / "logs", {"v": ""}), tmp_path / "out", CFG)
    assert not (tmp_path / "out").exists()
