"""KFP component of the stage `train_job`: train on several GPUs."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.MINING, install_kfp_package=False)
def train_job(
    samples: dsl.Input[dsl.Dataset],
    documents: dsl.Input[dsl.Dataset],
    system: str,
    registry: str,
    config: str,
    job: str,
    image: str,
    user: int,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trains one system as a TrainJob and waits for it; see crops.stages.learn.train_job.run."""
    from pathlib import Path

    from crops.config.kubeflow import TrainJob
    from crops.config.train import TrainConfig
    from crops.stages import plug
    from crops.stages.learn import train_job as stage

    cfg, settings = TrainConfig.from_json(config), TrainJob.from_json(job)
    inputs = Path(samples.path), Path(documents.path)
    plug.timed(
        f"train {system}",
        out.path,
        metrics,
        lambda folder: stage.run(
            *inputs, folder, cfg, settings, system=system, image=image, user=user, tracking=registry or None
        ),
        config,
    )
