"""KFP component of the stage `first`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def first(
    base: dsl.Input[dsl.Model],
    clicks: dsl.Input[dsl.Model],
    evaluated: dsl.Input[dsl.Artifact],
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """The encoder that becomes champion where there is none; see crops.stages.release.first.run."""
    from pathlib import Path

    from crops.stages import plug
    from crops.stages.release import first as stage

    plug.timed(
        "first",
        out.path,
        metrics,
        lambda folder: stage.run(plug.systems([base.path, clicks.path]), Path(evaluated.path), folder),
    )
