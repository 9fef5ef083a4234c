"""KFP component of the stage `follow`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def follow(
    name: str,
    state: str,
    prometheus: str,
    readout: str,
    registry: str,
    config: str,
    deploy_config: str,
    register_config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """Canary and A/B of the registry's challenger until it is over; see crops.stages.trial.follow.run."""
    from pathlib import Path

    from crops.config.deploy import DeployConfig
    from crops.config.register import RegisterConfig
    from crops.config.rollout import RolloutConfig
    from crops.stages import plug
    from crops.stages.trial import follow as stage

    plan, target = RolloutConfig.from_json(config), DeployConfig.from_json(deploy_config)
    model = RegisterConfig.from_json(register_config)
    options = {"prometheus": prometheus, "registry": registry, "readout": Path(readout) if readout else None}
    plug.timed(
        "follow",
        out.path,
        metrics,
        lambda folder: stage.run(state, folder, plan, target, model, name=name, **options),
        config,
    )
