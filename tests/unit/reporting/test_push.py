"""A release goes to the Hub on request, whole, as it was written, and with nothing of private/."""

from types import SimpleNamespace
from typing import Any

import pytest
from doubles.finished import finished

from plainchant.errors import ConfigError, PrivacyError, RunError
from plainchant.reporting.push import push

ROWS = [{"text": "a", "label": "red", "cell": 0}, {"text": "b", "label": "blue", "cell": 1}]


class _Hub:
    """Keeps what it is sent."""

    endpoint = "https://hub.example"

    def __init__(self, *, private=None, broken=None):
        self.made, self.sent, self._private, self._broken = [], {}, private, broken

    def create_repo(self, name, *, repo_type, private, exist_ok):
        if self._broken:
            raise self._broken
        self.made.append((name, repo_type, private, exist_ok))
        self._private = private if self._private is None else self._private

    def repo_info(self, name, *, repo_type):
        return SimpleNamespace(private=self._private)

    def create_commit(self, name, operations, *, commit_message, repo_type):
        assert repo_type == "dataset"
        self.sent = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}


def hub_of(**values) -> Any:
    """A stand-in for `huggingface_hub.HfApi`."""
    return _Hub(**values)


def test_the_files_of_the_release_go_up_and_nothing_else(tmp_path):
    run, hub = finished(tmp_path / "run", ROWS), hub_of()
    run.write_private("evaluation.json", {"secret": 1})
    (run.release / "notes.txt").write_text("mine")
    assert push(run, "me/tickets", api=hub) == "https://hub.example/datasets/me/tickets"
    assert hub.made == [("me/tickets", "dataset", True, True)]
    assert set(hub.sent) == {"README.md", "guarantee.json", "synthetic.jsonl", "synthetic.parquet"}
    assert all(content == (run.release / name).read_bytes() for name, content in hub.sent.items())


def test_a_repository_is_seen_by_everybody_on_request_only(tmp_path):
    run, hub = finished(tmp_path / "run", ROWS), hub_of()
    push(run, "me/tickets", public=True, api=hub)
    assert hub.made[0][2] is False
    seen = hub_of(private=False)
    with pytest.raises(ConfigError, match="everybody can see"):
        push(run, "me/tickets", api=seen)
    assert not seen.sent


def test_what_is_not_fit_to_be_shared_stays(tmp_path):
    hub, seeded, planted = (
        hub_of(),
        *(finished(tmp_path / name, ROWS, private=name != "seeded") for name in ("seeded", "planted")),
    )
    with pytest.raises(PrivacyError, match="NOT PRIVATE"):
        push(seeded, "me/tickets", api=hub)
    planted.write_private("canaries.json", {"count": 3})
    with pytest.raises(PrivacyError, match="canaries"):
        push(planted, "me/tickets", api=hub)
    changed = finished(tmp_path / "changed", ROWS)
    with (changed.release / "README.md").open("a") as file:
        file.write("edited")
    with pytest.raises(RunError, match="is not as the run wrote it"):
        push(changed, "me/tickets", api=hub)
    unfinished = finished(tmp_path / "unfinished", ROWS)
    (unfinished.private / "release.json").unlink()
    with pytest.raises(ConfigError, match="no release yet"):
        push(unfinished, "me/tickets", api=hub)
    assert not hub.made
    assert not hub.sent


@pytest.mark.parametrize("name", ["tickets", "a/b/c", "../x", "me/ticket s", "", "me/\n"])
def test_what_is_no_repository_is_refused_before_anything(tmp_path, name):
    hub = hub_of()
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        push(finished(tmp_path / "run", ROWS), name, api=hub)
    assert not hub.made


def test_what_the_hub_says_is_not_repeated(tmp_path):
    with pytest.raises(RunError, match=r"did not take the release \(OSError\)") as caught:
        push(finished(tmp_path / "run", ROWS), "me/tickets", api=hub_of(broken=OSError("token abc")))
    assert "abc" not in str(caught.value)
