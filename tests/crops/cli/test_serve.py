"""`crops serve` takes from the config what the gateway shares with mining and readout; `crops deploy` knows
which release belongs into an arm.
"""

from pathlib import Path

from click.testing import CliRunner

from crops.cli.main import main
from crops.services.registry import Registry
from crops.stages.release import deploy
from serving import laptop
from tests import shared
from tests.serving import releases as toys


def test_the_gateway_counts_reformulations_by_the_window_of_the_config(tmp_path, monkeypatch):
    served = {}
    monkeypatch.setattr(laptop, "release_of", lambda folder, name: (folder, name))
    monkeypatch.setattr(laptop, "serve", lambda *_args, settings, **_: served.update(settings))
    (tmp_path / "release").mkdir()
    (tmp_path / "c.yaml").write_text("reformulation: {window_s: 60}\n")
    command = ["serve", "--release", str(tmp_path / "release"), "--state", str(tmp_path / "state")]
    for more, window_s in (([], 90), (["--config", str(tmp_path / "c.yaml")], 60)):
        result = CliRunner().invoke(main, [*command, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert served["window_s"] == window_s


def test_deploy_takes_the_release_that_belongs_into_the_arm(tmp_path, monkeypatch):
    """Without --release; docs/operations.md writes a lost manifest anew by `crops deploy --arm control`."""
    uri, deployed = shared.new_registry(tmp_path / "registry"), []
    for number, release in enumerate(toys.build(tmp_path / "made"), 1):
        registry = Registry(uri, "crops")
        version = registry.register(Path(release.files), tags={"checksums": release.checksum})
        registry.move(("champion", "challenger")[number - 1], version, expected=None, reason="test")

    def release_of(_models, version, arm, _settings):
        deployed.append((version, arm))
        return {"generation": 1, "uri": version, "model": "m"}

    monkeypatch.setattr(deploy, "release", release_of)
    (tmp_path / "c.yaml").write_text(f"deploy: {{manifest: {tmp_path}/manifest.json, triton: null}}\n")
    for more in (["--arm", "control"], ["--arm", "treatment"], []):
        command = ["deploy", *more, "--registry", uri, "--config", str(tmp_path / "c.yaml")]
        assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert deployed == [("1", "control"), ("2", "treatment"), ("2", "treatment")]
