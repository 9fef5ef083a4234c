"""Where a registered release is put for gateways: the one that the registry holds, whatever has its name."""

from pathlib import Path

import pytest

from crops.config.deploy import DeployConfig
from crops.release import layout, manifest
from crops.services.registry import Registry
from crops.stages.release import deploy


def registered(folder: Path, text: str) -> tuple[Registry, str]:
    """A registry of its own with version 1, and that version's checksum."""
    release = folder / "release"
    release.mkdir(parents=True)
    for name in layout.ENCODER_FILES:
        (release / name).write_text(text)
    checksum = layout.seal(release)
    registry = Registry(f"sqlite:///{folder}/mlflow.db", "crops")
    assert registry.register(release, tags={"checksums": checksum}) == "1"
    return registry, checksum


@pytest.mark.parametrize("place", ["{tmp}/releases", "memory://{tmp}/releases"])
def test_a_registry_made_anew_never_serves_the_release_that_had_its_number(tmp_path, monkeypatch, place):
    """Versions count from 1 in each registry: crops-1 lies there, and is another release."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    releases = place.format(tmp=tmp_path)
    cfg = DeployConfig(manifest=str(tmp_path / "manifest.json"), releases=releases, triton=None)
    (old, old_sum), (new, new_sum) = (registered(tmp_path / name, name) for name in ("old", "new"))
    seen = {}
    for registry, wanted in ((old, old_sum), (new, new_sum), (old, old_sum), (new, new_sum)):
        deploy.release(registry, "1", "control", cfg)
        served = manifest.read(str(cfg.manifest)).arms["control"]
        assert served.checksum == wanted
        assert served.files == seen.setdefault(wanted, served.files), "put there once"
    assert seen[old_sum].endswith("/crops-1"), "what was served stays where it is"
    assert seen[new_sum].endswith(f"/crops-1-{new_sum[:12]}")
