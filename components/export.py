"""KFP component of the stage `export`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def export(
    encoder: dsl.Input[dsl.Model],
    documents: dsl.Input[dsl.Dataset],
    theta: dsl.Input[dsl.Model],
    system: str,
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Query encoder as ONNX; see crops.stages.release.export.run."""
    from pathlib import Path

    from crops.config.export import ExportConfig
    from crops.stages import plug
    from crops.stages.release import export as stage

    cfg = ExportConfig.from_json(config)
    plug.timed(
        f"export {system}",
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(encoder.path), folder, cfg, documents=Path(documents.path), theta=Path(theta.path)
        ),
        config,
    )
