"""Settings of `crops rollout`."""

from crops.config.base import StageConfig


class RolloutConfig(StageConfig):
    """How a challenger goes to users."""
