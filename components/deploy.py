"""KFP component of the stage `deploy`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def deploy(
    register: dsl.Input[dsl.Artifact],
    registry: str,
    config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
):
    """The registered release to Triton and into the manifest; see crops.stages.release.deploy.run."""
    from pathlib import Path

    from crops.config.deploy import DeployConfig
    from crops.stages import plug
    from crops.stages.release import deploy as stage

    cfg = DeployConfig.from_json(config)
    plug.timed(
        "deploy",
        out.path,
        metrics,
        lambda folder: stage.run(Path(register.path), folder, cfg, registry_uri=registry),
        config,
    )
