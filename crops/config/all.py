"""The config file: one YAML with a section per stage. A verb reads its own section and refuses unknown
keys.
"""

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from crops.config.base import StageConfig
from crops.errors import ConfigError

# In the order of the pipeline. The class of section `augment` is AugmentConfig in crops/config/augment.py.
PIPELINE = (
    "validate",
    "augment",
    "knowledge",
    "discriminate",
    "label",
    "train",
    "export",
    "index",
    "evaluate",
    "gate",
    "register",
    "report",
    "deploy",
)
SHARED = "reformulation"  # its keys are the defaults of the same keys in other sections
SECTIONS = (SHARED, *PIPELINE, "ablate", "judge", "experiment", "rollout", "kubeflow")


def section_class(name: str) -> type[StageConfig]:
    """The StageConfig of one section, imported only now: a verb loads no other stage's module."""
    module = importlib.import_module(f"crops.config.{name}")
    section: type[StageConfig] = getattr(module, f"{name.capitalize()}Config")
    return section


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the YAML file says, section by section; sections that it leaves out have their defaults."""

    source: str = "defaults"
    raw: dict[str, Any] = field(default_factory=dict)

    def section(self, name: str) -> Any:
        """The checked config of one stage; a ConfigError names the file, the section and the key."""
        cls = section_class(name)
        shared = {} if name == SHARED else self.section(SHARED).model_dump(include=set(cls.model_fields))
        return cls.parse(shared | (self.raw.get(name) or {}), source=f"{self.source}, section {name}")

    def with_value(self, section: str, key: str, value: Any) -> "Config":
        """The same with one value changed, as a command-line option does."""
        return replace(self, raw={**self.raw, section: {**(self.raw.get(section) or {}), key: value}})

    def section_json(self, name: str) -> str:
        """The same as one JSON string, for KFP components: all values written out, keys sorted."""
        return json.dumps(self.section(name).model_dump(mode="json"), sort_keys=True)


def load(path: Path | None) -> Config:
    """Reads the YAML at `path` (None: all defaults) and refuses unknown sections; keys are checked per
    section.
    """
    if path is None:
        return Config()
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `crops config` prints one to start from") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a section per stage, found {type(raw).__name__}")
    if unknown := sorted(str(key) for key in raw.keys() - set(SECTIONS)):
        raise ConfigError(f"{path}: unknown section {unknown[0]!r}; sections: {', '.join(SECTIONS)}")
    for name, values in raw.items():
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"{path}: section {name!r} holds {values!r}, expected keys and values")
    return Config(source=str(path), raw=raw)


def commented() -> Iterator[str]:
    """The default config as YAML lines, each key under what it does, its unit and where its default comes
    from.
    """
    for name in SECTIONS:
        cls = section_class(name)
        yield f"# {(cls.__doc__ or '').strip().splitlines()[0]}"
        yield f"{name}:"
        for key, info in cls.model_fields.items():
            if name != SHARED and key in section_class(SHARED).model_fields:
                continue
            yield f"  # {' '.join((info.description or '').split())}"
            default = cls().model_dump(mode="json")[key]
            yield f"  {key}: {json.dumps(default, ensure_ascii=False)}"
        yield ""
