"""KFP component of the stage `theta`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def theta(
    logs: dsl.Input[dsl.Dataset],
    candidates: dsl.Input[dsl.Dataset],
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trains and calibrates the discriminator; see crops.stages.learn.theta.run."""
    from pathlib import Path

    from crops.config.discriminate import DiscriminateConfig
    from crops.stages import plug
    from crops.stages.learn import theta as stage

    cfg = DiscriminateConfig.from_json(config)
    plug.timed(
        "theta",
        out.path,
        metrics,
        lambda folder: stage.run(Path(logs.path), Path(candidates.path), folder, cfg),
        config,
    )
