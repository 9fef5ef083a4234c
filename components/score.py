"""KFP component of the stage `score`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def score(
    theta: dsl.Input[dsl.Model],
    candidates: dsl.Input[dsl.Dataset],
    perspective: str,
    out: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """θ of one perspective's pairs; see crops.stages.score.run."""
    from pathlib import Path

    from crops.stages import plug
    from crops.stages import score as stage

    plug.timed(
        f"score {perspective}",
        out.path,
        metrics,
        lambda folder: stage.run(Path(theta.path), Path(candidates.path), folder, perspective=perspective),
    )
