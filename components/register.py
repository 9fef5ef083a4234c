"""KFP component of the stage `register`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def register(
    exported: dsl.Input[dsl.Model],
    indexed: dsl.Input[dsl.Model],
    documents: dsl.Input[dsl.Dataset],
    samples: dsl.Input[dsl.Dataset],
    evaluated: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    registry: str,
    config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Registers the challenger when the verdict is promote; see crops.stages.release.register.run."""
    from pathlib import Path

    from crops.config.register import RegisterConfig
    from crops.stages import plug
    from crops.stages.release import register as stage

    cfg = RegisterConfig.from_json(config)
    plug.timed(
        "register",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(exported.path),
            Path(indexed.path),
            Path(documents.path),
            Path(samples.path),
            folder,
            cfg,
            registry=registry or None,
            alias="challenger",
            verdict=Path(verdict.path),
            metrics=Path(evaluated.path),
        ),
        config,
    )
