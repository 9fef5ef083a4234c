"""KFP component of the stage `validate`."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.MINING, install_kfp_package=False)
def validate(
    logs: dsl.Input[dsl.Dataset],
    fingerprint: str,  # noqa: ARG001
    config: str,
    out: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    docs: dsl.Output[dsl.HTML],
    beside: dsl.Output[dsl.Dataset],
):
    """Logs to accepted rows and quarantine; see crops.stages.logs.validate.run.

    `beside`: what the logs hold beside their tables; see crops.stages.plug.beside. `fingerprint` is part of
    the cache key alone: with new logs or new code the task runs anew.
    """
    from pathlib import Path

    from crops.config.validate import ValidateConfig
    from crops.stages import plug, show
    from crops.stages.logs import validate as stage

    cfg = ValidateConfig.from_json(config)
    plug.timed("validate", out.path, metrics, lambda folder: stage.run(Path(logs.path), folder, cfg), config)
    show.docs(out.path, docs.path)
    plug.beside(logs.path, beside.path)
