"""Settings of `crops deploy`."""

from pathlib import Path

from pydantic import Field

from crops import secret
from crops.config.base import StageConfig
from crops.errors import ConfigError


class DeployConfig(StageConfig):
    """Where a registered release goes: Triton's model repository, a folder that gateways read, the release
    manifest.
    """

    manifest: str | None = None
    """fsspec URL of the release manifest; null: the pipeline deploys nothing. Source: the deployment."""
    triton: str | None = "http://127.0.0.1:8000"
    """Triton's HTTP address, to load models by; null: Tritons follow the manifest by themselves
    (serving.triton.follow). Source: Triton.
    """
    triton_key_file: Path | None = None
    """File with the key of that Triton's control APIs; `crops serve` writes STATE/triton.key. Source: the
    deployment.
    """
    repository: str = "models"
    """Triton's model repository, a folder that this process writes. Source: the deployment."""
    releases: str = "releases"
    """Folder or fsspec URL that gateways read releases from, under that name. Source: the deployment."""
    gateways: tuple[str, ...] = ()
    """Addresses of the gateways that must report the new generation, http://host:port. Source: the
    deployment.
    """
    milvus: str | None = None
    """Milvus to search in, a server's address or a .db path for milvus-lite; null: FAISS. Source: ours."""
    instances: int = Field(0, ge=0)
    """Instances of the encoder at Triton; 0: one per core. Source: ours."""
    timeout_s: float = Field(180.0, gt=0)
    """Longest wait for Triton and for the gateways, seconds. Source: ours."""

    def triton_key(self) -> str | None:
        """What is in triton_key_file; a ConfigError where that is empty or cannot be read."""
        return None if self.triton_key_file is None else secret.read(self.triton_key_file).decode("latin-1")

    def served(self) -> str:
        """The manifest's URL; a ConfigError where the config names none."""
        if self.manifest is None:
            raise ConfigError("deploy.manifest is null: say in the config where the release manifest is")
        return self.manifest
