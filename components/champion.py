"""KFP component of the stage `champion`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def champion(
    registry: str,
    fingerprint: str,  # noqa: ARG001
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """The registry's champion on disk, empty where there is none; see crops.stages.release.champion.run.

    `fingerprint` is part of the cache key alone: with new logs or new code the task runs anew.
    """
    from crops.config.register import RegisterConfig
    from crops.stages import plug
    from crops.stages.release import champion as stage

    cfg = RegisterConfig.from_json(config)
    arguments = {"registry": registry or None}
    plug.timed("champion", out.path, metrics, lambda folder: stage.run(folder, cfg, **arguments), config)
