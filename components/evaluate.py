"""KFP component of the stage `evaluate`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def evaluate(
    documents: dsl.Input[dsl.Dataset],
    tests: dsl.Input[dsl.Dataset],
    source: dsl.Input[dsl.Dataset],
    champion: dsl.Input[dsl.Model],
    config: str,
    base: dsl.Input[dsl.Model],
    clicks: dsl.Input[dsl.Model],
    clicks_mnrl: dsl.Input[dsl.Model],
    crops: dsl.Input[dsl.Model],
    crops_paper: dsl.Input[dsl.Model],
    crops_no_knowledge: dsl.Input[dsl.Model],
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    table: dsl.Output[dsl.Markdown],
):
    """All systems on all test sets; see crops.stages.learn.evaluate.run."""
    from pathlib import Path

    from crops.config.evaluate import EvaluateConfig
    from crops.stages import plug, show
    from crops.stages.learn import evaluate as stage

    cfg = EvaluateConfig.from_json(config)
    encoders = base, clicks, clicks_mnrl, crops, crops_paper, crops_no_knowledge
    plug.timed(
        "evaluate",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(documents.path),
            Path(tests.path),
            folder,
            cfg,
            champion=plug.optional(champion.path),
            truth=plug.graded(source.path),
            systems=plug.systems([encoder.path for encoder in encoders]),
        ),
        config,
    )
    show.recall(out.path, table.path)
