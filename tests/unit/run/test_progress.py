"""Progress is shown where somebody watches, and a stream that is gone ends no run."""

import io
import sys
from types import SimpleNamespace

import pytest

from plainchant.run.progress import LineProgress, NoProgress, default_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_or_a_notebook_is_shown_a_line_and_nobody_else(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert isinstance(default_progress(), NoProgress)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(default_progress(), LineProgress)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for shell, shown in (
        (None, NoProgress),
        (SimpleNamespace(), NoProgress),
        (SimpleNamespace(kernel=1), LineProgress),
    ):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert isinstance(default_progress(), shown)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(default_progress(), NoProgress)


def test_one_line_is_written_over_and_says_what_is_left(monkeypatch):
    now = iter([0.0, 5.0, 8.0, 10.0, 20.0, 1_000.0, 1_500.0])
    monkeypatch.setattr("plainchant.run.progress.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    line = LineProgress(stream)
    for share in (0.0, 0.5, 1.0):
        line.stage("loading", share)
    for done in (40, 45, 50, 100):
        line.texts(done, 100, 7)
    shown = stream.getvalue().split("\r")[1:]
    assert [one.strip() for one in shown] == [
        "loading: 0%",
        "loading: 50%, about 5 s left",
        "loading: 100%",
        "writing texts: 40 of 100",
        "writing texts: 45 of 100, about 2 min left",
        "writing texts: 50 of 100, about 82 min left",
        "writing texts: 100 of 100",
    ]
    # what was longer before is blanked out
    assert len(shown[-1].rstrip("\n")) == len(shown[-2])


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("I/O operation on closed file")])
def test_a_stream_that_is_gone_ends_nothing(error):
    class Gone(io.StringIO):
        def write(self, text):
            raise error

    LineProgress(Gone()).texts(1, 2, 3)
