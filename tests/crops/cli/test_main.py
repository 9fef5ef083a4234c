"""The verbs as a user types them: help that lists them all, and one line with exit code 2 for bad input."""

import functools
import json
import subprocess
import sys

import click
import pytest

from crops.cli.main import VERBS, main
from crops.cli.support import show
from crops.stages.base import StageReport


def crops(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "crops", *args], capture_output=True, text=True, timeout=120)


def test_help_lists_every_verb_without_importing_any():
    """Importing torch or kfp for `--help` would cost seconds; the modules of the verbs are loaded when
    called.
    """
    code = (
        "import sys; from crops.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch','kfp','mlflow','duckdb','pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:]
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_without_a_verb_it_is_the_help():
    alone, asked = crops(), crops("--help")
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == asked.stdout
    assert "_CROPS_COMPLETE=bash_source" in alone.stdout


@functools.cache
def helps(module: str) -> dict[str, tuple[int, str]]:
    """Verb -> (exit code, help) of a module's verbs, from a process that loads nothing but that module."""
    code = (
        "import json, sys; from click.testing import CliRunner; from crops.cli.main import main\n"
        "done = {verb: CliRunner().invoke(main, [verb, '--help']) for verb in sys.argv[1:]}\n"
        "print(json.dumps({verb: (d.exit_code, d.stdout) for verb, d in done.items()}))"
    )
    verbs = [verb for verb, (theirs, _) in VERBS.items() if theirs == module]
    done = subprocess.run([sys.executable, "-c", code, *verbs], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_that_says_what_it_does(verb):
    returncode, stdout = helps(VERBS[verb][0])[verb]
    assert returncode == 0, stdout
    assert len(stdout.splitlines()) >= 6


def commands(command, *names):
    """Every verb and what stands below it, with the words that call it."""
    context = click.Context(command)
    if not isinstance(command, click.Group):
        yield names, command
        return
    yield names, command
    for name in command.list_commands(context):
        yield from commands(command.get_command(context, name), *names, name)


def test_no_help_shows_the_mark_that_keeps_its_lines_apart():
    """Click takes the mark away only where it stands alone on a line; otherwise the examples run together."""
    helps = {
        " ".join(names): command.get_help(click.Context(command, info_name=" ".join(names) or "crops"))
        for names, command in commands(main)
    }
    assert len(helps) > len(VERBS)
    assert not [name for name, text in helps.items() if "\b" in text or "\\b" in text]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["augment", "--logs", "/nowhere", "--out", "x"], "/nowhere"),
        (["augmented"], "augmented"),
        (["validat", "--logs", "x"], "No such command 'validat'. Did you mean 'validate'?"),
        (["run", "--logs", "s3://bucket/logs", "--out", "x"], "'s3://bucket/logs' is an address, expected"),
        (["augment", "--logs", "tests", "--out", "tests"], "tests: is tests, which is read"),
        (["world", "--out", "crops"], "which crops has not written: name another folder"),
        (["augment", "--out", "x"], "--logs"),
        (
            ["augment", "--logs", ".", "--out", "x", "--config", "/nowhere.yaml"],
            "/nowhere.yaml: no such file",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, expected):
    done = crops(*args)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert expected in done.stderr


def test_a_folder_without_tables_names_the_table(tmp_path):
    (tmp_path / "logs").mkdir()
    done = crops("augment", "--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "out"))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "searches" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_without_tables_ends_before_it_begins(tmp_path):
    (tmp_path / "logs").mkdir()
    done = crops("run", "--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "out"))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "table videos, searches, results: `crops look" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_verb_of_verbs_alone_is_its_help():
    alone, asked = crops("judge"), crops("judge", "--help")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr == asked.stdout


def test_a_registry_that_nobody_made_is_named_and_not_made(tmp_path):
    done = crops("serve", "--registry", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert "none/mlflow.db: no such registry; `crops run` makes it" in done.stderr
    assert not (tmp_path / "none").exists()


def test_of_several_ranks_the_first_speaks(monkeypatch, capsys, tmp_path):
    for rank, lines in (("1", 0), ("0", 2)):
        monkeypatch.setenv("RANK", rank)
        show("train", 0.0, StageReport(numbers={"steps": 3}), tmp_path)
        assert len(capsys.readouterr().out.splitlines()) == lines
