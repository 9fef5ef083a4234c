"""Encoders that the console shows beside the served ones."""

import sys

from serving.gateway import alternatives
from serving.gateway.settings import Settings


def test_where_none_is_asked_for_no_onnx_runtime_is_needed(monkeypatch, tmp_path):
    """The gateway's image has none."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "crops.release.encoder", raising=False)
    secret = tmp_path / "secret"
    secret.write_text("a" * 32)
    settings = Settings.parse({"manifest": "m", "triton": "t:1", "secret_file": secret})
    assert alternatives.load(settings.alternatives, settings) == {}
