"""KFP component of the stage `train`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def train(
    samples: dsl.Input[dsl.Dataset],
    documents: dsl.Input[dsl.Dataset],
    system: str,
    checkpoints: str,
    registry: str,
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trains one system; see crops.stages.learn.train.run."""
    from pathlib import Path

    from crops.config.train import TrainConfig
    from crops.stages import plug
    from crops.stages.learn import train as stage

    cfg = TrainConfig.from_json(config)
    plug.timed(
        f"train {system}",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(samples.path),
            Path(documents.path),
            folder,
            cfg,
            system=system,
            checkpoints=plug.below(checkpoints, system),
            tracking=registry or None,
        ),
        config,
    )
