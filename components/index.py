"""KFP component of the stage `index`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINING, install_kfp_package=False)
def index(
    exported: dsl.Input[dsl.Model],
    documents: dsl.Input[dsl.Dataset],
    system: str,
    config: str,
    out: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Catalogue to a FAISS index; see crops.stages.release.index.run."""
    from pathlib import Path

    from crops.config.index import IndexConfig
    from crops.stages import plug
    from crops.stages.release import index as stage

    cfg = IndexConfig.from_json(config)
    plug.timed(
        f"index {system}",
        out.path,
        metrics,
        lambda folder: stage.run(Path(exported.path), Path(documents.path), folder, cfg),
        config,
    )
