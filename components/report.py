"""KFP component of the stage `report`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.MINING, install_kfp_package=False)
def report(
    source: dsl.Input[dsl.Dataset],
    validate: dsl.Input[dsl.Dataset],
    augment: dsl.Input[dsl.Dataset],
    knowledge: dsl.Input[list[dsl.Dataset]],
    champion: dsl.Input[dsl.Model],
    theta: dsl.Input[dsl.Model],
    scores: dsl.Input[list[dsl.Dataset]],
    discriminate: dsl.Input[dsl.Dataset],
    label: dsl.Input[dsl.Dataset],
    released: dsl.Input[dsl.Model],
    base: dsl.Input[dsl.Model],
    clicks: dsl.Input[dsl.Model],
    clicks_mnrl: dsl.Input[dsl.Model],
    crops: dsl.Input[dsl.Model],
    crops_paper: dsl.Input[dsl.Model],
    crops_no_knowledge: dsl.Input[dsl.Model],
    exported: dsl.Input[dsl.Model],
    indexed: dsl.Input[dsl.Model],
    evaluated: dsl.Input[dsl.Artifact],
    baseline: dsl.Input[dsl.Artifact],
    gate: dsl.Input[dsl.Artifact],
    register: dsl.Input[dsl.Artifact],
    config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
):
    """Everything to report.json and report.html; see crops.stages.report.run."""

    from crops.config.report import ReportConfig
    from crops.stages import plug, show
    from crops.stages import report as stage

    cfg = ReportConfig.from_json(config)
    encoders = base, clicks, clicks_mnrl, crops, crops_paper, crops_no_knowledge
    plug.timed(
        "report",
        out.path,
        metrics,
        lambda folder: stage.run(
            {
                "source": source.path,
                "validate": validate.path,
                "augment": augment.path,
                "champion": champion.path,
                "theta": theta.path,
                "discriminate": discriminate.path,
                "label": label.path,
                "released": released.path,
                "exported": exported.path,
                "indexed": indexed.path,
                "evaluated": evaluated.path,
                "baseline": baseline.path,
                "gate": gate.path,
                "register": register.path,
            },
            folder,
            cfg,
            shards={
                "knowledge": [part.path for part in knowledge],
                "train": [encoder.path for encoder in encoders],
                "score": [part.path for part in scores],
            },
        ),
        config,
    )
    show.page(out.path, page.path)
