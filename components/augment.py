"""KFP component of the stage `augment`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.MINING, install_kfp_package=False)
def augment(
    logs: dsl.Input[dsl.Dataset], config: str, out: dsl.Output[dsl.Dataset], metrics: dsl.Output[dsl.Metrics]
):
    """Accepted logs to candidates, documents and test sets; see crops.stages.logs.augment.run."""
    from pathlib import Path

    from crops.config.augment import AugmentConfig
    from crops.stages import plug
    from crops.stages.logs import augment as stage

    cfg = AugmentConfig.from_json(config)
    plug.timed("augment", out.path, metrics, lambda folder: stage.run(Path(logs.path), folder, cfg))
