"""The commands. Each parses, calls the library, and hands the outcome to the console."""

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from plainchant.cli import account, demo, doctor, interrupts, judge, look, plan, run, share, terminal
from plainchant.cli.console import Console, OutputError
from plainchant.cli.options import GroupedCommand, with_output
from plainchant.cli.resuming import how_to_continue
from plainchant.errors import DataNote, PlainchantError

# What the machine may refuse, and what a user can do about it.
_OTHER_PLACE = "choose another place, or change who may write there"
_MACHINE = {
    errno.ENOSPC: "free some space, or choose a place on another disk",
    errno.EDQUOT: "free some space, or choose a place on another disk",
    errno.EACCES: _OTHER_PLACE,
    errno.EPERM: _OTHER_PLACE,
    errno.EROFS: _OTHER_PLACE,
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file, not a directory",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check the symbolic links in the path",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the network disk",
    errno.EFBIG: "choose a place that allows larger files",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOLCK: "choose a place on a file system with locks, such as a local disk",
    errno.ENOMEM: "close other programs, or set --rows or --memory lower",
}


def _sentence(error: OSError) -> str | None:
    """What the machine refused, in one sentence without the exception's own words; None where it is no such error."""
    advice = _MACHINE.get(error.errno or 0)
    if advice is None or error.errno is None:
        return None
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    place = f"{' to '.join(names)}: " if names else ""
    return f"{place}{os.strerror(error.errno)}; {advice}"


@contextlib.contextmanager
def _notes_shown() -> Iterator[None]:
    """Notes about how the data was read, on stderr: they are the holder's own view."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataNote)
        otherwise = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, DataNote):
                Console("quiet").warn(str(message), private=True)
            else:
                otherwise(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


class _Commands(GroupedCommand, click.Group):
    """Turns errors into a message and an exit code; never shows what an unexpected exception says."""

    def main(self, *args: Any, **extra: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            terminal.prepare(stream)
        try:
            try:
                return super().main(*args, **extra)
            finally:
                terminal.flush()
        except BrokenPipeError:
            terminal.abandon(sys.stdout)
            sys.exit(1)
        except OSError:
            terminal.abandon(sys.stdout)
            Console("quiet").fail(OutputError.MESSAGE)
            sys.exit(OutputError.exit_code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with the whole first sentence of each, where click would cut it to a line."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, (command.short_help or (command.help or "").split("\n\n")[0]).replace("\n", " "))
                    for name, command in found
                    if command is not None and not command.hidden
                ]
            )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        GroupedCommand.format_options(self, ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interrupts.as_exception(), _notes_shown():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            message, code = _told(error)
            Console("quiet").fail(message)
            ctx.exit(code)


def _of_help(error: BaseException) -> bool:
    """Whether an error comes from click as it prints a help page."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return isinstance(error, OSError) and place is not None and place.tb_frame.f_code is click.echo.__code__


def _told(error: BaseException) -> tuple[str, int]:
    """The message and the exit code of an error."""
    if isinstance(error, KeyboardInterrupt) or interrupts.seen():
        return f"interrupted{how_to_continue()}", interrupts.INTERRUPTED
    if isinstance(error, PlainchantError):
        return str(error), error.exit_code
    if _of_help(error):
        terminal.abandon(sys.stdout)
        return OutputError.MESSAGE, OutputError.exit_code
    sentence = _sentence(error) if isinstance(error, OSError) else None
    if sentence is not None:
        return sentence + how_to_continue(), 1
    # a library's message may quote a record; where it happened may be shown, what it said may not
    frames = "".join(traceback.format_tb(error.__traceback__))
    return (
        f"unexpected {type(error).__name__}; its message is not shown, since it could quote private text.\n"
        f"{frames}Please report the lines above."
    ), 1


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(package_name="plainchant")
@with_output
def main(style: str | None, verbose: bool, log_file: Path | None) -> None:
    """Differentially private synthetic text from a private table, without training.

    \b
    plainchant demo                 end-to-end run on built-in data, about five minutes
    plainchant check --data FILE    what the table holds; spends nothing, for you alone
    plainchant init --data FILE     write a commented configuration file
    plainchant preview CONFIG       ten texts by the public model; reads no private data
    plainchant plan CONFIG          what a run would guarantee and write; reads no private data
    plainchant run CONFIG --data FILE --out DIR
    plainchant evaluate DIR --real FILE

    Every option that stands for a field of the configuration can also be set in the environment, as
    PLAINCHANT_<NAME>: PLAINCHANT_EPSILON=4, PLAINCHANT_ROWS=128. The command line replaces the environment,
    and the environment replaces CONFIG.

    Exit codes: 0 done, 1 failure, 2 usage, configuration or data, 3 refused for privacy, 4 a gate of evaluate
    or audit failed, 130 interrupted (resumable).
    """


@click.command("help", add_help_option=False, short_help="Show this page, or that of a command.")
@click.argument("name", metavar="[COMMAND]", required=False)
@click.pass_context
def help_page(context: click.Context, name: str | None) -> None:
    """Show the general help, or a command's."""
    root = context.find_root()
    found = main if name is None else main.get_command(root, name)
    if found is None:
        raise click.UsageError(f"{name}: no such command; known are {', '.join(sorted(main.commands))}", root)
    page = root if name is None else click.Context(found, root, name, **main.context_settings)
    click.echo(found.get_help(page))


for command in (
    demo.demo, look.check, plan.init, look.preview, plan.plan, run.run, run.status, judge.evaluate, judge.compare,
    judge.audit, judge.report, share.statement, share.view, share.push, account.account, doctor.doctor, help_page,
):  # fmt: skip
    main.add_command(command)
