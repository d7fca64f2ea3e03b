"""Uploads a release to the Hugging Face Hub, on request only."""

import re
from typing import TYPE_CHECKING, Any

from plainchant.errors import ConfigError, PlainchantError, RunError
from plainchant.evaluation.runs import directory_of
from plainchant.reporting.statement import refuse_unfit

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def push(run: Any, repository: str, *, public: bool = False, api: "HfApi | None" = None) -> str:
    """Uploads the files of a release in one commit, exactly the bytes whose checksums were compared.

    * Nothing else is read from the run's directory: no page, and nothing of private/.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        repository: owner/name of a data set on the Hub; made if there is none.
        public: whether everybody may see a new repository; one that exists stays as it is.
        api: the Hub; by default the one that the machine is logged in to.

    Returns:
        The address of the data set.

    Raises:
        ConfigError: there is no such run, it is not finished, or `repository` is no name.
        PrivacyError: the release has no guarantee, or holds planted canaries.
        RunError: the release is not as the run wrote it, or the Hub did not take it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if _REPOSITORY.fullmatch(repository) is None:
        raise ConfigError(f"OWNER/NAME = {repository!r}: give the owner and the name of a data set on the Hub")
    directory = directory_of(run)
    refuse_unfit(directory)
    files = directory.sealed_release()
    api = api or HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
        if not public and not api.repo_info(repository, repo_type="dataset").private:
            raise ConfigError(f"{repository}: everybody can see it; give --public, or name another")
        api.create_commit(
            repository,
            [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()],
            commit_message="Differentially private synthetic texts by plainchant",
            repo_type="dataset",
        )
    except PlainchantError:
        raise
    except Exception as error:  # the client's own errors and those of its HTTP library
        raise RunError(
            f"{repository}: the Hub did not take the release ({type(error).__name__}); check the name, the network, "
            "that you are logged in (hf auth login), and that the Hub knows the licence of the card"
        ) from None
    return f"{api.endpoint}/datasets/{repository}"
