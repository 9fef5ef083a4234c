"""KFP component of the stage `refresh`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def refresh(
    release: dsl.Input[dsl.Model],
    logs: dsl.Input[dsl.Dataset],
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """New videos into a release's index; see crops.stages.release.refresh.run."""
    from pathlib import Path

    from crops.config.index import IndexConfig
    from crops.stages import plug
    from crops.stages.release import refresh as stage

    cfg = IndexConfig.from_json(config)
    plug.timed(
        "refresh",
        out.path,
        metrics,
        lambda folder: stage.run(Path(release.path), Path(logs.path), folder, cfg),
        config,
    )
