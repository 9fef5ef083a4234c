"""KFP component of the stage `baseline`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def baseline(
    exported: dsl.Input[dsl.Model],
    indexed: dsl.Input[dsl.Model],
    documents: dsl.Input[dsl.Dataset],
    samples: dsl.Input[dsl.Dataset],
    evaluated: dsl.Input[dsl.Artifact],
    champion: dsl.Input[dsl.Model],
    registry: str,
    config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Registers the first champion where there is none; see crops.stages.release.baseline.run."""
    from pathlib import Path

    from crops.config.register import RegisterConfig
    from crops.stages import plug
    from crops.stages.release import baseline as stage

    cfg = RegisterConfig.from_json(config)
    plug.timed(
        "baseline",
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
            champion=plug.optional(champion.path),
            metrics=Path(evaluated.path),
        ),
        config,
    )
