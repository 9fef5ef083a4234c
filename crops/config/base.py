"""What every stage's config shares: frozen, keyword-only, strict, and self-describing."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crops.errors import ConfigError

Engine = Literal["duckdb", "spark"]
ENGINES: tuple[str, ...] = get_args(Engine)


class StageConfig(BaseModel):
    """One stage's settings. Each field says in its description what it does, its unit and where its default
    comes from.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    renamed: ClassVar[Mapping[str, str]] = {}  # a key's old name to its new one

    @classmethod
    def parse(cls, values: dict[str, Any] | None, *, source: str = "config") -> Self:
        """Checks `values`; a misspelt or ill-typed key is a ConfigError that names the class and the key."""
        try:
            return cls.model_validate(values or {})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                if key in cls.renamed:
                    raise ConfigError(
                        f"{source}: {cls.__name__}.{key} is called {cls.renamed[key]} now"
                    ) from error
                keys = ", ".join(sorted(cls.model_fields))
                raise ConfigError(f"{source}: {cls.__name__} knows no key {key!r}; known: {keys}") from error
            raise ConfigError(
                f"{source}: {cls.__name__}.{key} is {first['input']!r}: {first['msg']}"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """For KFP components, which pass a config as one JSON string, and for processes that serve."""
        import json

        try:
            return cls.parse(json.loads(text))
        except json.JSONDecodeError as error:
            raise ConfigError(f"{cls.__name__}: not JSON: {error}") from error


def engine() -> Any:
    """The field `engine` of the stages that two engines can do."""
    return Field(
        "duckdb", description="duckdb, embedded, or spark (extra `spark`), at spark_master. Source: ours."
    )


def spark_master() -> Any:
    """The setting of every stage that runs on Spark."""
    return Field(
        "local[*]",
        pattern=r"^(local(\[.+\])?|local-cluster\[.+\]|(spark|sc|k8s|yarn)(://.+)?)$",
        description="--engine spark: local[*], local[N], a cluster (spark://host:7077) or Spark Connect "
        "(sc://host:15002); "
        "logs and out must lie where the executors see them under the same path. Source: "
        "ours; changes speed only.",
    )
