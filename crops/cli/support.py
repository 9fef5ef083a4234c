"""What all verbs share: lazy loading, the config option, and one line with exit code 2 for bad input."""

import errno
import functools
import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from crops.config import all as configs
from crops.errors import CropsError
from crops.stages.base import StageReport

FOLDER = click.Path(path_type=Path, file_okay=False)
EXISTING = click.Path(path_type=Path, exists=True, file_okay=False)


class Verbs(click.Group):
    """A group whose verbs are imported when they are called: `crops --help` needs neither torch nor kfp."""

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy_verbs = verbs

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order of the pipeline, which is the order to read them in."""
        return list(self.lazy_verbs)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from its module."""
        if cmd_name not in self.lazy_verbs:
            return None
        module, _ = self.lazy_verbs[cmd_name]
        name = {"import": "import_"}.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line a verb, without importing it."""
        with formatter.section("Verbs, in the order of the pipeline"):
            formatter.write_dl([(name, line) for name, (_, line) in self.lazy_verbs.items()])


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config F`: one YAML with a section per stage."""
    return click.option(
        "--config",
        "config",
        type=click.Path(path_type=Path),
        default=None,
        callback=lambda _c, _p, path: configs.load(path),
        help="YAML with a section per stage; `crops config` prints the defaults with what each does.",
    )(command)


def registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--registry URI`: where releases are registered; the config's `register.name` says as what."""

    def given(_ctx: click.Context, _param: click.Parameter, uri: str | None) -> str:
        from crops.services.registry import uri_of  # pandas is behind it, which `crops --help` does not need

        return uri or uri_of()

    return click.option(
        "--registry", default=None, callback=given, help="MLflow tracking URI. Default: SQLite in ./mlruns."
    )(command)


def out_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--out DIR`: where the stage writes; replaced as a whole, and only when all of it is there."""
    return click.option(
        "--out", type=FOLDER, required=True, help="Folder to write; it appears only when it is whole."
    )(command)


def unread(name: str) -> Callable[..., Any]:
    """An option that older command lines hold and that nothing reads any more; hidden, and still accepted."""
    return click.option(name, expose_value=False, hidden=True, help="Not read any more.")


def show(verb: str, started_s: float, report: StageReport, out: Path | str) -> None:
    """The stage's numbers on the terminal, under torchrun from the first rank alone. `out`: folder or URL."""
    if os.environ.get("RANK", "0") != "0":
        return
    click.secho(f"{verb}: {time.monotonic() - started_s:.1f} s -> {out}", bold=True)
    for line in report.lines():
        click.echo(line)


def folder(name: str, text: str, **more: Any) -> Callable[..., Any]:
    """An option that names an existing folder, required unless `more` says otherwise; `text`: its help."""
    return click.option(name, type=EXISTING, help=text, **{"required": "default" not in more, **more})


def verb(stage: Callable[..., StageReport]) -> click.Command:
    """A verb with --out and --config from a function that runs a stage and returns its report, which is
    shown.
    """

    @functools.wraps(stage)
    def shown(*, out: Path, **given: Any) -> None:
        started_s = time.monotonic()
        show(
            " ".join([stage.__name__, *given.get("system", "").split()]),
            started_s,
            stage(out=out, **given),
            out,
        )

    command: click.Command = click.command()(out_option(config_option(shown)))
    return command


def guarded(main: Callable[[], Any]) -> None:
    """Runs the program: what the user caused becomes one line and exit code 2, Ctrl-C 130; a bug keeps its
    traceback.
    """
    try:
        sys.exit(main())
    except CropsError as error:
        fail(str(error))
    except click.ClickException as error:
        fail(error.format_message())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        fail(f"{error.filename or 'a temporary file'}: cannot write: {os.strerror(error.errno)}")
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


def fail(message: str) -> None:
    """One line on standard error, exit code 2."""
    click.echo(f"crops: {' '.join(message.split())}", err=True)
    sys.exit(2)
