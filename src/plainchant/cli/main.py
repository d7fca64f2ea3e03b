"""The commands. Each parses, calls the library, and hands the outcome to the console."""

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import click

from plainchant.cli import account, demo, doctor, judge, run
from plainchant.cli.console import Console
from plainchant.errors import DataNote, PlainchantError

INTERRUPTED = 130


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
                Console("quiet").warn(str(message))
            else:
                otherwise(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


class _Commands(click.Group):
    """Turns errors into a message and an exit code; never shows what an unexpected exception says."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _notes_shown():
                return super().invoke(ctx)
        except PlainchantError as error:
            Console("quiet").fail(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            Console("quiet").fail(
                "interrupted; texts that were finished are kept. If the run's directory is there, --resume goes on"
            )
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # a library's message may quote a record; where it happened may be shown, what it said may not
            frames = "".join(traceback.format_tb(error.__traceback__))
            Console("quiet").fail(
                f"unexpected {type(error).__name__}; its message is not shown, since it could quote private text.\n"
                f"{frames}Please report the lines above."
            )
            ctx.exit(1)


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(package_name="plainchant")
def main() -> None:
    r"""Differentially private synthetic text from a private table, without training.

    \b
    plainchant demo                 the whole way on built-in data, about five minutes
    plainchant init                 a commented configuration file
    plainchant plan CONFIG          what a run would guarantee and write; reads no private data
    plainchant run CONFIG --data FILE --out DIR

    plainchant evaluate DIR --real FILE

    Exit codes: 0 done, 1 failure, 2 usage or configuration, 3 refused for privacy, 4 a gate of evaluate or audit
    failed, 130 interrupted (resumable).
    """


for command in (
    demo.demo, run.init, run.plan, run.run, run.status, judge.evaluate, judge.compare, judge.audit, judge.report,
    account.account, doctor.doctor,
):  # fmt: skip
    main.add_command(command)
