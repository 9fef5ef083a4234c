"""`python -m pipelines.compile`: writes the pipelines as YAML beside their source; a test compares them."""

import importlib
from pathlib import Path

from kfp import compiler

HERE = Path(__file__).parent


NAMES = ("training", "refresh_index", "rollout")


def write(name: str, path: Path) -> None:
    """Writes the YAML of one of NAMES to `path`, without a cluster's settings."""
    module = importlib.import_module(f"pipelines.{name}")
    compiler.Compiler().compile(module.build(), str(path))


if __name__ == "__main__":
    for each in NAMES:
        write(each, HERE / f"{each}.yaml")
