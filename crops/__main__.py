"""`python -m crops` is `crops`."""

from crops.cli.main import run

run()
