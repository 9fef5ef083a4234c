"""New videos into what is served: the champion's index extended or built anew, a version of its own, swapped.
Wiring only.

The encoder stays: what a document is, is decided by training alone. So this may run every hour, and training
once a week.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kfp import dsl
from kfp.dsl import pipeline_context

from components import adopt, champion, deploy, finish, refresh


def build(tune: Callable[[Iterable[dsl.PipelineTask]], None] = lambda _tasks: None) -> Any:
    """The pipeline. `tune`: gives all its tasks what a cluster asks for."""

    @dsl.pipeline(
        name="crops-refresh-index", description="New videos into the champion's index, and that into service."
    )
    def refresh_index(
        logs: str,
        fingerprint: str,
        registry: str,
        index_config: str,
        register_config: str,
        deploy_config: str,
        served: str = "",
    ) -> None:
        """`logs`: URI or path of the folder that holds `videos`; `served`: URL of the release manifest."""
        last = finish.finish().set_caching_options(False)
        with dsl.ExitHandler(last, name="refresh-index"):
            raw = dsl.importer(artifact_uri=logs, artifact_class=dsl.Dataset, reimport=True).output
            serving_now = champion.champion(
                registry=registry, fingerprint=fingerprint, config=register_config
            ).outputs["out"]
            made = refresh.refresh(release=serving_now, logs=raw, config=index_config).outputs["out"]
            kept = adopt.adopt(
                refreshed=made, registry=registry, served=served, config=register_config
            ).outputs["out"]
            deploy.deploy(register=kept, registry=registry, config=deploy_config)
        tasks = list(pipeline_context.Pipeline.get_default_pipeline().tasks.values())
        for task in tasks:
            task.set_caching_options(False)  # whose inputs are the same names every hour, and other videos
        tune(tasks)

    return refresh_index


refresh_index = build()
