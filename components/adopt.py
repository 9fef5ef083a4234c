"""KFP component of the stage `adopt`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def adopt(
    refreshed: dsl.Input[dsl.Model],
    registry: str,
    served: str,
    config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """A refreshed release becomes the champion; see crops.stages.release.adopt.run."""
    from pathlib import Path

    from crops.config.register import RegisterConfig
    from crops.stages import plug
    from crops.stages.release import adopt as stage

    cfg = RegisterConfig.from_json(config)
    plug.timed(
        "adopt",
        out.path,
        metrics,
        lambda folder: stage.run(Path(refreshed.path), folder, cfg, uri=registry, served=served or None),
        config,
    )
