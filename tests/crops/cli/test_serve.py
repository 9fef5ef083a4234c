"""`crops serve` takes from the config what the gateway shares with mining and readout."""

from click.testing import CliRunner

from crops.cli.main import main
from serving import laptop


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
