"""KFP component of the stage `label`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def label(
    scored: dsl.Input[dsl.Dataset],
    source: dsl.Input[dsl.Dataset],
    config: str,
    out: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Grades all samples and chooses the hierarchy; see crops.stages.learn.label.run."""
    from pathlib import Path

    from crops.config.label import LabelConfig
    from crops.stages import plug
    from crops.stages.learn import label as stage

    cfg = LabelConfig.from_json(config)
    plug.timed(
        "label",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(scored.path),
            folder,
            cfg,
            truth=plug.optional(Path(source.path) / "truth"),
            judged=plug.optional(Path(source.path) / "judgements"),
        ),
        config,
    )
