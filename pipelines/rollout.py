"""Canary and A/B of the registry's challenger as one run, which succeeds where it is promoted. Wiring
only.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kfp import dsl
from kfp.dsl import pipeline_context

from components import finish, follow


def build(tune: Callable[[Iterable[dsl.PipelineTask]], None] = lambda _tasks: None) -> Any:
    """The pipeline. `tune`: gives all its tasks what a cluster asks for."""

    @dsl.pipeline(
        name="crops-rollout",
        description="Canary and A/B of the challenger until it is promoted or rolled back.",
    )
    def rolled(
        name: str,
        state: str,
        prometheus: str,
        registry: str,
        rollout_config: str,
        deploy_config: str,
        register_config: str,
        readout: str = "",
    ) -> None:
        """`state`: an s3:// URL, or a folder of a volume that gateways see too; `readout`: readout.json on
        such a volume, made anew there.
        """
        last = finish.finish().set_caching_options(False)
        with dsl.ExitHandler(last, name="rollout"):
            follow.follow(
                name=name,
                state=state,
                prometheus=prometheus,
                readout=readout,
                registry=registry,
                config=rollout_config,
                deploy_config=deploy_config,
                register_config=register_config,
            ).set_caching_options(False)
        tune(pipeline_context.Pipeline.get_default_pipeline().tasks.values())

    return rolled


rolled = build()
