"""What a run on disk promises: derived from its configuration and its randomness, never believed from a file."""

import dataclasses
from typing import Any

from plainchant.errors import RunError
from plainchant.planning import Guarantee, Plan, guarantee_of, make_plan
from plainchant.run.store import RunDirectory


def promise_of(directory: RunDirectory) -> Guarantee:
    """The guarantee of a run on disk; its version is the one that the run was made by.

    Raises:
        RunError: plan.json records another one.
    """
    return checked_promise(directory, make_plan(directory.config))


def checked_promise(directory: RunDirectory, plan: Plan) -> Guarantee:
    """As `promise_of`, with the plan of the run's configuration.

    Raises:
        RunError: plan.json records another one.
    """
    derived = guarantee_of(plan, private=directory.origin.private)
    recorded = directory.plan.get("guarantee")
    version = recorded_version(directory)
    if version is None or recorded != dataclasses.asdict(dataclasses.replace(derived, version=version)):
        raise RunError(
            f"{directory.path / 'plan.json'}: its guarantee is not the one that this version derives from the run's "
            f"configuration and randomness; restore the file, or use the version that made the run"
            + (f" ({version})" if version is not None and version != derived.version else "")
        )
    return dataclasses.replace(derived, version=version)


def recorded_version(directory: RunDirectory) -> str | None:
    """The version of plainchant that a run was made by; None where plan.json does not say."""
    recorded: Any = directory.plan.get("guarantee")
    version = recorded.get("version") if isinstance(recorded, dict) else None
    return version if isinstance(version, str) else None
