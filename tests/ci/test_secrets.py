"""`make secrets` finds what must not be committed, and nothing in what is."""

import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def hook():
    """The scanner with the options of the Makefile, as pre-commit and `make check` run it."""
    said = subprocess.run(
        ["make", "-s", "-n", "secrets"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    command = said[said.index(".venv/bin/detect-secrets-hook") :].replace("\\\n", " ")
    return shlex.split(command)


def test_planted_secrets_are_found(tmp_path):
    planted = {
        "settings.yaml": "aws_access_key_id: AKIA" + "QWERTYUIOPASDFGH",
        "key.pem": "-----BEGIN RSA " + "PRIVATE KEY-----",
        "client.py": "password" + ' = "hunter2-and-more"',
    }
    for name, text in planted.items():
        (tmp_path / name).write_text(text + "\n")
        done = subprocess.run([*hook(), str(tmp_path / name)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1, name
        assert name in done.stdout
