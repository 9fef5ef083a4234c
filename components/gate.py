"""KFP component of the stage `gate`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def gate(
    evaluated: dsl.Input[dsl.Artifact],
    exported: dsl.Input[dsl.Model],
    indexed: dsl.Input[dsl.Model],
    config: str,
    out: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    reasons: dsl.Output[dsl.Markdown],
):
    """Challenger against champion; see crops.stages.release.gate.run."""
    from pathlib import Path

    from crops.config.gate import GateConfig
    from crops.stages import plug, show
    from crops.stages.release import gate as stage

    cfg = GateConfig.from_json(config)
    plug.timed(
        "gate",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(evaluated.path), folder, cfg, export=Path(exported.path), index=Path(indexed.path)
        ),
        config,
    )
    show.verdict(out.path, reasons.path)
