"""KFP component of the stage `discriminate`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def discriminate(
    candidates: dsl.Input[dsl.Dataset],
    knowledge: dsl.Input[list[dsl.Dataset]],
    champion: dsl.Input[dsl.Model],
    theta: dsl.Input[dsl.Model],
    scores: dsl.Input[list[dsl.Dataset]],
    source: dsl.Input[dsl.Dataset],
    config: str,
    out: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Gates the pairs of all perspectives; see crops.stages.learn.discriminate.run."""
    from pathlib import Path

    from crops.config.discriminate import DiscriminateConfig
    from crops.stages import plug
    from crops.stages.learn import discriminate as stage

    cfg = DiscriminateConfig.from_json(config)
    plug.timed(
        "discriminate",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(candidates.path),
            folder,
            cfg,
            knowledge=[Path(part.path) for part in knowledge],
            champion=plug.optional(champion.path),
            truth=plug.optional(Path(source.path) / "truth"),
            theta=Path(theta.path),
            scores=[Path(part.path) for part in scores],
        ),
        config,
    )
