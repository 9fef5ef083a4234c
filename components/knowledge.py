"""KFP component of the stage `knowledge`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.MINING, install_kfp_package=False)
def knowledge(
    candidates: dsl.Input[dsl.Dataset],
    llm: str,
    checkpoints: str,
    shard: str,
    config: str,
    out: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Descriptions of further videos from an LLM; see crops.stages.logs.knowledge.run."""
    from pathlib import Path

    from crops.config.knowledge import KnowledgeConfig
    from crops.stages import plug
    from crops.stages.base import Shard
    from crops.stages.logs import knowledge as stage

    part = Shard.parse(shard)
    cfg = KnowledgeConfig.from_json(config)
    plug.timed(
        part.of("knowledge"),
        out.path,
        metrics,
        lambda folder: stage.run(
            Path(candidates.path),
            folder,
            cfg,
            llm=llm or None,
            cache=plug.below(checkpoints, f"answers-{shard.replace('/', '-of-')}.sqlite"),
            shard=part,
        ),
        config,
    )
