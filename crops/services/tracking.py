"""A training in MLflow, live. What the tracking server does never ends a training: it is said once, and
training goes on.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from crops.errors import ServiceError
from crops.services import registry

EXPERIMENT = "crops-training"
KEY = "crops.key"


class Tracked:
    """One MLflow run. `problem` holds the first thing that went wrong; nothing more is sent after it."""

    def __init__(self, uri: str | None) -> None:
        self.uri, self.run_id, self.problem = uri, "", ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of one step."""
        self.attempt(lambda client: client.log_batch(self.run_id, _metrics(step, values)))

    def attempt(self, action: Callable[[Any], Any]) -> Any:
        """Does it with an MlflowClient, unless nobody tracks or something failed before."""
        if self.uri is None or self.problem:
            return None
        try:
            with registry.client_of(self.uri) as client:
                return action(client)
        except ServiceError as error:
            self.problem = f"training is not tracked: {error}"
            return None


@contextmanager
def tracked(uri: str | None, *, name: str, key: str, params: Mapping[str, object]) -> Iterator[Tracked]:
    """One MLflow run while the block lasts. `key` names the training: started again after a kill, it goes on
    in the same run.

    `uri` None: nothing is sent, and MLflow is not even imported.
    """
    tracked = Tracked(uri)
    tracked.run_id = tracked.attempt(lambda client: _run(client, str(uri), name, key, params)) or ""
    try:
        yield tracked
    except BaseException:
        tracked.attempt(lambda client: client.set_terminated(tracked.run_id, "FAILED"))
        raise
    tracked.attempt(lambda client: client.set_terminated(tracked.run_id))


def _run(client: Any, uri: str, name: str, key: str, params: Mapping[str, object]) -> str:
    from mlflow.entities import Param, RunTag

    number = registry.experiment_of(client, uri, EXPERIMENT)
    if before := client.search_runs([number], f"tags.`{KEY}` = '{key}'", max_results=1):
        run_id = str(before[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
        return run_id
    run_id = str(client.create_run(number, run_name=name).info.run_id)
    client.log_batch(
        run_id, params=[Param(k, str(v)[:500]) for k, v in params.items()], tags=[RunTag(KEY, key)]
    )
    return run_id


def _metrics(step: int, values: Mapping[str, float]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, float(value), int(time.time() * 1000), step) for name, value in values.items()]
