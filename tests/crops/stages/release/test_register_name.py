"""`register.name` all the way round on a real MLflow: what is registered as `foo` is found, compared with,
deployed, served and rolled out as `foo`, twice over.
"""

from click.testing import CliRunner

from crops.arms import CHALLENGER, CHAMPION
from crops.cli import serve
from crops.cli.main import main
from crops.config.deploy import DeployConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.config.rollout import RolloutConfig
from crops.release import manifest
from crops.services.registry import Registry
from crops.stages.release import adopt, baseline, champion, deploy, refresh, register
from crops.stages.trial import rollout
from crops.tables import artifacts
from tests.crops.stages import toy_release as toy

NAMED = RegisterConfig(name="foo", probes=8)


def test_a_release_of_another_name_goes_all_the_way_round_and_so_does_the_next(tmp_path):
    texts = {row["doc_id"]: row["text"] for row in toy.DOCUMENTS}
    uri = toy.champion(tmp_path, texts)  # another model beside it, with an alias of the same name
    models = Registry(uri, "foo")
    parts = tmp_path / "onnx", tmp_path / "index", tmp_path / "mined", tmp_path / "samples"

    assert champion.run(tmp_path / "none", NAMED, registry=uri).numbers == {"champion_found": 0}
    baseline.run(*parts, tmp_path / "first", NAMED, registry=uri)
    assert artifacts.read_json(tmp_path / "first/release.json")["uri"] == "models:/foo/1"
    served = DeployConfig(
        manifest=str(tmp_path / "manifest.json"), releases=str(tmp_path / "releases"), triton=None
    )
    deploy.run(tmp_path / "first", tmp_path / "deployed", served, registry_uri=uri)
    assert manifest.read(str(served.manifest)).arms["control"].uri == "models:/foo/1"

    # The second run: the champion is found, so the baseline stays out and a challenger comes beside it.
    assert champion.run(tmp_path / "held", NAMED, registry=uri).numbers == {"champion_found": 1}
    baseline.run(*parts, tmp_path / "second", NAMED, registry=uri, champion=tmp_path / "held")
    assert artifacts.read_json(tmp_path / "second/release.json")["uri"] is None
    logs = toy.catalogue(tmp_path / "logs", texts | {"new": "a new video"})
    refresh.run(tmp_path / "held", logs, tmp_path / "refreshed", IndexConfig())
    adopt.run(tmp_path / "refreshed", tmp_path / "adopted", NAMED, uri=uri)
    assert models.holder(CHAMPION) == "2"
    fewer = NAMED.model_copy(update={"max_training_pairs": 0})
    register.run(*parts, tmp_path / "third", fewer, registry=uri)
    assert models.holder(CHALLENGER) == "3"

    folder, name = serve._folder(None, models, tmp_path / "state")
    assert (folder, name) == (tmp_path / "state/releases/foo-2", "models:/foo/2")
    place = rollout.place(
        tmp_path / "rollout", served, prometheus="http://127.0.0.1:1", registry=models, readout=None
    )
    state = rollout.start(place, RolloutConfig(), name="autumn")
    assert (state.control, state.treatment) == ("models:/foo/2", "models:/foo/3")
    assert Registry(uri, "crops").holder(CHALLENGER) is None
    assert Registry(uri, "crops").holder(CHAMPION) == "1"


def test_the_verbs_take_the_name_from_the_config(tmp_path):
    """Nothing is registered as `foo`: each verb that looks there says so, and by which name."""
    settings = tmp_path / "config.yaml"
    settings.write_text(
        f"register: {{name: foo}}\ndeploy: {{manifest: {tmp_path / 'manifest.json'}, triton: null}}\n"
    )
    uri = f"sqlite:///{tmp_path / 'registry/mlflow.db'}"
    assert Registry(uri, "crops").holder(CHAMPION) is None  # MLflow makes the database when it is first asked
    state = ["--state", str(tmp_path / "state")]
    for verb in (["serve", *state], ["deploy"], ["rollout", "start", "--name", "autumn", *state]):
        done = CliRunner().invoke(main, [*verb, "--registry", uri, "--config", str(settings)])
        assert "foo" in str(done.exception), (verb, done.exception, done.output)
