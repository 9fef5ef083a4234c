"""What all verbs share: lazy loading, the config option, and one line with exit code 2 for bad input."""

import difflib
import errno
import functools
import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from crops import memory
from crops.config import all as configs
from crops.errors import ITEM, CropsError
from crops.stages.base import StageReport
from crops.tables import folders


class Existing(click.Path):
    """A folder of this machine; an address of somewhere else is told apart from a missing folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType.convert."""
        if "://" in str(value):
            self.fail(
                f"{value!r} is an address, expected a folder of this machine: copy it or mount it (only "
                "`crops submit --logs` takes an address)",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


FOLDER = click.Path(path_type=Path, file_okay=False)
EXISTING = Existing(path_type=Path, exists=True, file_okay=False)
# Folders of these options are written as well, and may lie where the output lies.
STATE = ("out", "checkpoints", "state")
# Modules that are not called as their package; and a requirement of an extra as a wheel's metadata writes it.
PACKAGES = {
    "faiss": "faiss-cpu",
    "ibis": "ibis-framework",
    "psycopg2": "psycopg2-binary",
    "sklearn": "scikit-learn",
}
OF_EXTRA = re.compile(r"""(?P<package>[\w.-]+)[^;]*;\s*extra == ["'](?P<extra>[\w-]+)["']$""")


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown verb is answered with the one that was probably meant."""
        if args and args[0] not in self.lazy_verbs:
            near = difflib.get_close_matches(args[0], self.lazy_verbs, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "`crops` alone lists the verbs."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

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
        envvar="CROPS_CONFIG",
        show_envvar=True,
        callback=lambda _c, _p, path: configs.load(path),
        help="YAML with a section per stage; `crops config` prints the defaults with what each does.",
    )(command)


def registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--registry URI`: where releases are registered; the config's `register.name` says as what."""

    def given(_ctx: click.Context, _param: click.Parameter, uri: str | None) -> str:
        from crops.services.registry import uri_of  # pandas is behind it, which `crops --help` does not need

        return uri or uri_of()

    return click.option(
        "--registry",
        default=None,
        envvar="CROPS_REGISTRY",
        show_envvar=True,
        callback=given,
        help="MLflow tracking URI. Default: SQLite in ./mlruns.",
    )(command)


def out_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--out DIR`: where the stage writes; replaced as a whole, and only when all of it is there.

    Refused before any work where it is not ours to replace, touches an input or is another run's.
    """
    return click.option(
        "--out",
        type=FOLDER,
        required=True,
        help="Folder to write: a new or empty one, or one that crops wrote; it appears when it is whole.",
    )(_guarding(command, folders.refuse))


def shared_out_option(text: str) -> Callable[..., Any]:
    """`--out DIR` of a verb that adds to a folder instead of replacing it; `text`: its help."""
    return lambda command: click.option("--out", type=FOLDER, required=True, help=text)(
        _guarding(command, folders.apart)
    )


def _guarding(command: Callable[..., Any], check: Callable[[Path, list[Path]], None]) -> Callable[..., Any]:
    """The command with its `out` checked against everything that it reads, and held while it runs."""

    @functools.wraps(command)
    def checked(*, out: Path, **given: Any) -> Any:
        inputs = [path for name, value in given.items() if name not in STATE for path in _paths(value)]
        check(out, inputs)
        # Under torchrun every rank has the same --out, and the first one writes it.
        alone = os.environ.get("RANK", "0") == "0"
        with folders.held(out) if alone else nullcontext():
            return command(out=out, **given)

    return checked


def _paths(value: Any) -> list[Path]:
    """The paths in the value of an option: one, several, or by name."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [path for path in (value if isinstance(value, tuple) else (value,)) if isinstance(path, Path)]


def unread(name: str) -> Callable[..., Any]:
    """An option that older command lines hold and that nothing reads any more; hidden, and still accepted."""
    return click.option(name, expose_value=False, hidden=True, help="Not read any more.")


def show(verb: str, started_s: float, report: StageReport, out: Path | str) -> None:
    """Seconds, peak memory and the stage's numbers on the terminal, under torchrun from the first rank alone.
    `out`: folder or URL.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    took = f"{time.monotonic() - started_s:.1f} s, {memory.peak() / memory.GB:.1f} GB"
    click.secho(f"{verb}: {took} -> {out}", bold=True)
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
    """Runs the program: what the user caused, or did not install, becomes one line and exit code 2, Ctrl-C
    130; a bug keeps its traceback.
    """
    try:
        sys.exit(main())
    except CropsError as error:
        fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:  # `crops judge`: the help is no message of one line
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        fail(error.format_message())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        fail(f"{error.filename or 'a temporary file'}: cannot write: {os.strerror(error.errno)}")
    except ModuleNotFoundError as error:
        package = _package(error.name or "")
        if not (extras := _extras_with(package)):
            raise
        needed = " or ".join(f"crops[{extra}]" for extra in extras)
        fail(f"the package {package} is not installed here; it comes with {needed} (docs/install.md)")
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


def _package(module: str) -> str:
    top = module.partition(".")[0]
    return PACKAGES.get(top, top.replace("_", "-"))


def _extras_with(package: str) -> list[str]:
    """The extras of this project that bring a package; none where it is none of theirs."""
    listed = (OF_EXTRA.match(line) for line in metadata.requires("crops") or ())
    return [m["extra"] for m in listed if m and m["package"] == package and m["extra"] != "dev"]


def fail(message: str) -> None:
    """One line on standard error (and one for each of several faults), exit code 2."""
    lines = (" ".join(line.split()) for line in message.split(ITEM))
    click.echo(f"crops: {ITEM.join(lines)}", err=True)
    sys.exit(2)
