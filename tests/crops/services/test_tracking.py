"""A training's curves in a real MLflow on SQLite: one run per training, also over a restart; a dead server is
a note.
"""

import mlflow
import pytest

from crops.services import registry, tracking

PARAMS = {"system": "crops", "steps": 3}


def runs(uri):
    client = mlflow.MlflowClient(tracking_uri=uri)
    return client, client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])


def test_a_killed_training_goes_on_in_the_same_run(tmp_path):
    uri = registry.uri_of(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        tracking.tracked(uri, name="train crops", key="k", params=PARAMS) as first,
    ):
        first.log(1, {"loss": 2.0})
        raise KeyboardInterrupt
    assert [r.info.status for r in runs(uri)[1]] == ["FAILED"]
    with tracking.tracked(uri, name="train crops", key="k", params=PARAMS) as second:
        second.log(2, {"loss": 1.0, "tau": 0.05})
    with tracking.tracked(uri, name="train crops", key="another", params=PARAMS):
        pass
    client, found = runs(uri)
    assert len(found) == 2
    (mine,) = [r for r in found if r.data.tags[tracking.KEY] == "k"]
    assert mine.info.status == "FINISHED"
    assert mine.data.params == {"system": "crops", "steps": "3"}
    assert [(m.step, m.value) for m in client.get_metric_history(mine.info.run_id, "loss")] == [
        (1, 2.0),
        (2, 1.0),
    ]


def test_a_dead_server_is_a_note_and_nothing_more_is_sent():
    with tracking.tracked("http://127.0.0.1:9", name="t", key="k", params=PARAMS) as found:
        found.log(1, {"loss": 1.0})
        assert "not tracked" in found.problem
        assert "127.0.0.1:9" in found.problem


def test_without_an_address_nothing_is_sent():
    with tracking.tracked(None, name="t", key="k", params=PARAMS) as found:
        found.log(1, {"loss": 1.0})
    assert found.problem == ""
