"""Training on several GPUs: the samples to a volume that a TrainJob's pods share, the encoder back from
it.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from crops.config.kubeflow import TrainJob
from crops.config.train import TrainConfig
from crops.services import trainjob
from crops.stages.base import StageReport
from crops.tables import artifacts


def run(
    samples: Path,
    documents: Path,
    out: Path,
    cfg: TrainConfig,
    job: TrainJob,
    *,
    system: str,
    image: str,
    user: int,
    tracking: str | None = None,
    api: Any = None,
) -> StageReport:
    """As crops.stages.learn.train.run, by the same `crops train` under torchrun in the pods of a TrainJob.

    The job's name is that of its inputs: a task that is started again finds the job that the one before it
    made.
    """
    key = _digest(samples, documents, cfg, job, system)
    name = f"crops-{system.replace('_', '-')}-{key[:10]}"
    shared = Path(job.path) / "train-jobs" / name
    _copy(samples, shared / "samples")
    _copy(documents, shared / "documents")
    shared.joinpath("train.yaml").write_text(
        yaml.safe_dump({"train": cfg.model_dump(mode="json")}), encoding="utf-8"
    )
    folders = {name: str(shared / name) for name in ("samples", "documents", "checkpoints")}
    options = {**folders, "out": str(shared / "encoder"), "config": str(shared / "train.yaml")}
    options |= {"system": system} | ({"tracking": tracking} if tracking else {})
    command = ["train", *(word for name, value in options.items() for word in (f"--{name}", value))]
    manifest = trainjob.manifest(name, image, command, job, user=user)
    trainjob.run(manifest, job, api=api)
    trained = artifacts.read_json(shared / "encoder/train.json")
    with artifacts.replacing(out) as folder:
        shutil.copytree(shared / "encoder", folder, dirs_exist_ok=True)
    shutil.rmtree(shared, ignore_errors=True)
    return StageReport(
        numbers={"nodes": job.nodes, "best_step": int(trained["best_step"])}, notes=(f"TrainJob {name}",)
    )


def _copy(source: Path, target: Path) -> None:
    """Whole or not there; a copy that is there already belongs to the same inputs."""
    if not target.is_dir():
        with artifacts.replacing(target, private=True) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def _digest(samples: Path, documents: Path, cfg: TrainConfig, job: TrainJob, system: str) -> str:
    digest = hashlib.sha256(f"{cfg.model_dump_json()}\n{job.model_dump_json()}\n{system}".encode())
    for root in (samples, documents):
        for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
