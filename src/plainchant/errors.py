"""Errors that name the field, its value, the bound and the next step; never a record's text."""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path


class PlainchantError(Exception):
    """Base of every error that plainchant raises on purpose. The command line exits with `exit_code`."""

    exit_code = 1


class ConfigError(PlainchantError, ValueError):
    """A configuration, an option or an argument is out of its bounds."""

    exit_code = 2


class DataError(PlainchantError, ValueError):
    """A table cannot be read as a whole: a missing file, column or label. Single bad rows never raise."""

    exit_code = 2


class DataNote(UserWarning):
    """What the holder of a table should know about how it was read; never a record's text."""


class PrivacyError(PlainchantError, ValueError):
    """The guarantee cannot be derived, or the request would break it."""

    exit_code = 3


class RunError(PlainchantError, RuntimeError):
    """A run directory is in use, damaged, or does not match the request."""


class GateError(PlainchantError):
    """A figure of an evaluation or an audit violates the requested bound."""

    exit_code = 4


class ModelError(PlainchantError, RuntimeError):
    """A language model or an embedder cannot be loaded, or computes something that the guarantee cannot rest on."""


class MissingDependencyError(PlainchantError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    exit_code = 2


@contextlib.contextmanager
def foreign_messages_hidden(who: str) -> Iterator[None]:
    """Turns exceptions that are not plainchant's into a RunError without their messages, which may quote a record.

    Args:
        who: what failed, for the message.
    """
    try:
        yield
    except PlainchantError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise RunError(
            f"{who} failed with {type(error).__name__} ({Path(place.filename).name}, line {place.lineno}); its message "
            "is not shown, since it could quote private text"
        ) from None
