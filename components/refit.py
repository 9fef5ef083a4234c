"""KFP component of the stage `refit`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def refit(
    encoder: dsl.Input[dsl.Model],
    logs: dsl.Input[dsl.Dataset],
    documents: dsl.Input[dsl.Dataset],
    knowledge: dsl.Input[list[dsl.Dataset]],
    champion: dsl.Input[dsl.Model],
    theta: dsl.Input[dsl.Model],
    scores: dsl.Input[list[dsl.Dataset]],
    checkpoints: str,
    registry: str,
    augment_config: str,
    discriminate_config: str,
    label_config: str,
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """The challenger on all days, where train.last_fit says so; see crops.stages.learn.refit.run."""
    from pathlib import Path

    from crops.stages import plug
    from crops.stages.learn import refit as stage

    cfg = stage.Settings.from_json(augment_config, discriminate_config, label_config, config)
    plug.timed(
        "refit",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(encoder.path),
            Path(logs.path),
            Path(documents.path),
            folder,
            cfg,
            theta=Path(theta.path),
            scores=[Path(part.path) for part in scores],
            knowledge=[Path(part.path) for part in knowledge],
            champion=plug.optional(champion.path),
            checkpoints=plug.below(checkpoints, "refit"),
            registry=registry or None,
        ),
        config,
    )
