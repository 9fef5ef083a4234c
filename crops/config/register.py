"""Settings of `crops register`."""

from pydantic import Field

from crops.config.base import StageConfig


class RegisterConfig(StageConfig):
    """What is kept with a release."""

    name: str = Field("crops", min_length=1)
    """Name of the registered model."""
    licence: str = Field("other", min_length=1)
    """Licence of the trained weights, as Hugging Face writes it; the base's and the log's decide."""
    probes: int = Field(32, ge=1)
    """Queries whose vectors are the release's fingerprint. Source: ours."""
    max_training_pairs: int = Field(20_000, ge=0)
    """Training pairs kept to explain results. Source: ours, some MB."""
    min_users: int = Field(5, ge=1)
    """A query is kept with a release, as a pair's or as a probe, only where at least so many users typed it
    in the training days: rarer ones are private. Source: ours.
    """
