"""What every test shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is not a failure
settings.register_profile("plainchant", deadline=None)
settings.load_profile("plainchant")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What doubles are measured at must not stand in the user's cache, where plans would believe it."""
    # matplotlib would build its list of fonts anew, and say so
    os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
