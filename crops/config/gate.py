"""Settings of `crops gate`."""

from pydantic import Field

from crops.config.base import StageConfig


class GateConfig(StageConfig):
    """What a challenger must show before it goes on trial."""

    min_queries: int = Field(30, ge=1)
    """Fewer test queries than this give no answer; those of one chain of reformulations count once. Source:
    ours.
    """
    max_loss: float = Field(0.02, ge=0)
    """Loss allowed on guardrails (CT, tail, gated QR), points of recall as a share. Source: ours."""
    non_inferior: bool = False
    """Guardrails must show that the loss is not larger (the interval's low end), instead of not showing that
    it is: safe, and out of reach for small logs. Source: ours.
    """
    training_spread: float = Field(0.0, ge=0)
    """Standard deviation of the gain between two trainings of one system, as a share: widens the interval of
    the gain, which else takes both models as given. Source: ours.
    """
    min_recall: float = Field(0.2, ge=0, le=1)
    """Least recall@100 on ungated QR. Source: ours: below it nothing works."""
    min_index_recall: float = Field(0.95, ge=0, le=1)
    """Least recall of the index against exact search. Source: ours."""
    max_encode_ms: float = Field(50.0, gt=0)
    """Most median time for one query, one thread, milliseconds. Source: ours."""
