"""The refresh pipeline on KFP's local runner: a real release, a real registry, a manifest that gateways would
follow.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from crops.config.all import load
from crops.release import manifest
from crops.services.registry import Registry
from pipelines import submit
from tests.crops.stages import toy_release as toy

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import json, sys
from kfp import local
from pipelines.local import _environment
from pipelines.refresh_index import refresh_index
root, given = sys.argv[1], json.loads(sys.argv[2])
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True)
with _environment():
    refresh_index(**given)
"""


def test_new_videos_are_served_under_a_version_of_their_own(tmp_path):
    texts = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    uri = toy.champion(tmp_path, texts)
    served = str(tmp_path / "manifest.json")
    settings = tmp_path / "refresh.yaml"
    settings.write_text(
        json.dumps({"deploy": {"manifest": served, "releases": str(tmp_path / "releases"), "triton": None}})
    )
    logs = toy.catalogue(tmp_path / "logs", texts | {"new": "a video that came today"})
    given = submit.refresh(load(settings), logs=str(logs), registry=uri)
    command = [sys.executable, "-c", CODE, str(tmp_path / "kfp"), json.dumps(given)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert Registry(uri, "crops").holder("champion") == "2"
    held = manifest.read(served).arms["control"]
    assert held.uri == "models:/crops/2"
    ids = pq.read_table(Path(held.files) / "doc_ids.parquet")["doc_id"].to_pylist()
    assert ids == [*sorted(texts), "new"]
