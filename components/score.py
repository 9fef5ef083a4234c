"""KFP component of the stage `score`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def score(
    theta: dsl.Input[dsl.Model],
    candidates: dsl.Input[dsl.Dataset],
    shard: str,
    out: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """θ of the gated pairs, or of a shard of them; see crops.stages.learn.score.run."""
    from pathlib import Path

    from crops.stages import plug
    from crops.stages.base import Shard
    from crops.stages.learn import score as stage

    part = Shard.parse(shard)
    plug.timed(
        part.of("score"),
        out.path,
        metrics,
        lambda folder: stage.run(Path(theta.path), Path(candidates.path), folder, shard=part),
    )
