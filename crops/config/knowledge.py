"""Settings of `crops knowledge`."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from crops.config.base import StageConfig

BLOCKS = ("role", "format", "rules", "example", "query")


class KnowledgeConfig(StageConfig):
    """How the LLM is asked for descriptions of videos."""

    model: str = "default"
    """Model name sent to the endpoint. Source: paper: Qwen2.5-14B; the endpoint decides."""
    language: str = "auto"
    """The prompt's language: `en`, `zh`, or the name of another, in which answers are then asked for; auto:
    by the script of most of the queries. Source: ours."""
    prompt: dict[str, str] = Field({})
    """Blocks of the prompt (role, format, rules, example, query) to take in place of ours; {query},
    {exemplar}, {descriptions}, {items} and {fields} are filled in. Source: the paper's blocks, our words."""
    max_queries: int = Field(3_000, ge=1)
    """Training queries asked, in the order of `first`. Source: ours, a budget."""
    first: Literal["searched", "unanswered"] = "searched"
    """Which queries are asked first. searched: with the most searches; unanswered: with the most searches
    in which nobody clicked, where the log itself says least. Source: ours.
    """
    min_users: int = Field(5, ge=1)
    """A query is asked only where at least so many users typed it: rarer ones are private. Source: ours."""
    descriptions: int = Field(3, ge=1, le=10)
    """Descriptions asked per query. Source: ours; the paper is silent."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Sampling temperature. Source: ours."""
    max_answer_tokens: int = Field(600, ge=50)
    """Longest answer, tokens. Source: ours."""
    token_budget: int = Field(50_000_000, ge=1)
    """Prompt and answer tokens in all; what is left over is not asked."""
    concurrency: int = Field(16, ge=1)
    """Requests at once."""
    timeout_s: float = Field(60.0, gt=0)
    """Time for one answer, seconds."""
    retries: int = Field(4, ge=1)
    """Tries per question, with exponential back-off; Retry-After is obeyed."""
    store: str | None = None
    """Folder or fsspec URL of answers that outlives a run and that runs share: what was ever asked there, of
    the same model in the same words, is not asked again and costs nothing of the budget; null: none. Source:
    ours.
    """
    check: bool = False
    """Ask the LLM once more of each description whether a video like that would satisfy the query, and keep
    what it affirms or does not answer to; within the token budget. Source: ours; off.
    """
    max_rejected_share: float = Field(0.5, gt=0, le=1)
    """More rejected answers than this end the stage: the LLM answers rubbish. Source: ours."""

    @field_validator("prompt")
    @classmethod
    def _blocks(cls, prompt: dict[str, str]) -> dict[str, str]:
        if unknown := prompt.keys() - BLOCKS:
            raise ValueError(f"unknown blocks {sorted(unknown)}, expected some of {', '.join(BLOCKS)}")
        return prompt

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.store and self.model == type(self).model_fields["model"].default:
            raise ValueError(
                f"store is {self.store!r}, but model {self.model!r} may be another tomorrow: name the model"
            )
        return self
