"""`python -m pipelines.compile`: writes the pipelines as YAML beside their source; a test compares them."""

from pathlib import Path

from kfp import compiler

HERE = Path(__file__).parent


def compile_training(path: Path) -> None:
    """Writes the training pipeline's YAML to `path`."""
    from pipelines.training import training

    compiler.Compiler().compile(training, str(path))


if __name__ == "__main__":
    compile_training(HERE / "training.yaml")
