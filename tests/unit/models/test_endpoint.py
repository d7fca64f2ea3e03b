"""A model behind an endpoint: a real server on the loopback, through the real client, and what goes wrong."""

import email.utils
import socket
import sys
import threading
import time

import pytest
from doubles.server import KEY, MODEL, cut_off, dropped, serving, slow, status, trickling

from plainchant.config import PromptForm
from plainchant.errors import ConfigError, MissingDependencyError, ModelError
from plainchant.models import endpoint
from plainchant.models.endpoint import Endpoint, job_for

GOOD = {"choices": [{"text": " one", "finish_reason": "stop"}]}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    for name in (endpoint.KEY, endpoint.OPENAI_KEY):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def log():
    return []


@pytest.fixture
def open_endpoint(log):
    def opened(address, *, model=MODEL, timeout=5.0, most=4):
        return Endpoint(address, model, timeout=timeout, most=most, log=log.append)

    return opened


def job(number=0, form=PromptForm.EXAMPLES, model=MODEL):
    return job_for((0, number), model, f"prompt {number}", form, max_tokens=9, temperature=0.5, stop="\n")


def test_a_list_is_continued_and_a_message_answered(open_endpoint):
    with serving() as server:
        own = open_endpoint(server.address)
        assert own.ask(job()).text == " text number 0 about a harbour\nText: more"
        assert own.ask(job(form=PromptForm.CHAT)).text.startswith(" text number 1")
    (one, listed), (two, chat) = server.asked
    assert (one, two) == ("/v1/completions", "/v1/chat/completions")
    common = {"model": MODEL, "max_tokens": 9, "temperature": 0.5, "stop": ["\n"]}
    assert listed == {"prompt": "prompt 0", **common}
    assert chat == {"messages": [{"role": "user", "content": "prompt 0"}], **common}


PASSING = {
    "rate limit": (status(429, retry_after="0"), status(429)),
    "overloaded": (status(503),),
    "broken": (status(500, b"oops"), status(502)),
    "dropped": (dropped, dropped),
    "cut off": (cut_off,),
    "no JSON": (status(200, b"<html>"),),
    "deep JSON": (status(200, b"[" * 100_000),),
    "another document": (status(200, {"choices": []}), status(200, [1])),
    "no string": (status(200, {"choices": [{"text": 7}]}),),
    "no text": (status(200, {"choices": [{"text": " "}]}), status(200, {"choices": [{"message": {"content": None}}]})),
    "too large": (status(200, b" " * (2**22 + 1)),),
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_what_passes_is_asked_again(open_endpoint, faults):
    with serving(faults=list(faults)) as server:
        assert "harbour" in open_endpoint(server.address).ask(job()).text
    assert len(server.asked) == len(faults) + 1
    assert len({str(asked) for asked in server.asked}) == 1


@pytest.mark.parametrize("fault", [status(429), status(500), dropped, status(200, b"{}")])
def test_what_does_not_pass_is_given_up_after_a_bounded_number_of_tries(open_endpoint, monkeypatch, fault):
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.01)
    with serving(faults=[fault] * 50) as server, pytest.raises(ModelError, match=r"8 times; .*--resume"):
        open_endpoint(server.address).ask(job())
    assert len(server.asked) == endpoint.TRIES


def test_an_answer_without_text_is_asked_for_three_times(open_endpoint):
    with serving(text=lambda *_: "\n ") as server:
        assert open_endpoint(server.address).ask(job()).text == "\n "
    assert len(server.asked) == 3


def test_all_wait_as_long_as_the_server_asks(open_endpoint):
    for wait, least in (("0.5", 0.0), ("1", 0.95), (None, 0.9), ("soon", 0.0)):
        # a date has whole seconds
        wait = wait or email.utils.formatdate(time.time() + 2, usegmt=True)
        with serving(faults=[status(429, retry_after=wait)]) as server:
            list(open_endpoint(server.address, most=1).answers([job(0), job(1)]))
        assert server.times[1] - server.times[0] >= least
    with (
        serving(faults=[status(429, retry_after="7200")]) as server,
        pytest.raises(ModelError, match="wait for 7200 s"),
    ):
        open_endpoint(server.address).ask(job())


def test_a_rate_limit_does_not_end_a_run_as_long_as_somebody_gets_an_answer(open_endpoint, monkeypatch):
    monkeypatch.setattr(endpoint, "LONGEST_PAUSE", 0.01)
    faults = [fault for _ in range(12) for fault in (status(429), status(429), status(429), None)]
    with serving(faults=faults) as server:
        answers = list(open_endpoint(server.address, most=4).answers([job(number) for number in range(12)]))
    assert sorted(done.place[1] for done, _ in answers) == list(range(12))


def test_an_answer_that_comes_late_is_asked_for_again(open_endpoint):
    with serving(faults=[slow(1.0), trickling(0.05)]) as server:
        assert open_endpoint(server.address, timeout=0.3).ask(job()).text
        assert len(server.asked) == 3
        server.faults[:] = [slow(1.0)] * 9
        with pytest.raises(ModelError, match=r"has not answered within request_timeout = 0.3 seconds, 2 times"):
            open_endpoint(server.address, timeout=0.3).ask(job(), tries=2)


REFUSED = {
    "no key": (status(401), "refuses a request without a key .status 401.; set PLAINCHANT_API_KEY"),
    "forbidden": (status(403), "refuses a request without a key"),
    "no model": (status(404, {"error": {"message": "no such \x1b[31mmodel"}}),
                 r"has no model 'a-model'.*status 404: no such \\x1b\[31mmodel.*candidate_form = chat"),
    "no field": (status(400, {"error": "max_tokens is not supported"}), "refuses the request .status 400: max_tokens"),
    "moved": (status(301, location="https://example.org/v1"), "is somewhere else .status 301"),
    "no explanation": (status(422, b"{"), r"refuses the request .status 422.;"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "said"), REFUSED.values(), ids=REFUSED)
def test_what_no_other_try_mends_is_said_at_once(open_endpoint, fault, said):
    with serving(faults=[fault]) as server, pytest.raises(ModelError, match=said) as error:
        open_endpoint(server.address).ask(job())
    assert len(server.asked) == 1
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_an_unknown_model_is_said_with_its_name(open_endpoint):
    with serving() as server, pytest.raises(ModelError, match=r"no model 'other'.*The model `other` does not exist"):
        open_endpoint(server.address, model="other").ask(job(model="other"))


def test_nobody_there(open_endpoint, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ModelError, match=r"cannot be reached or breaks off \(ConnectError\), 2 times"):
        open_endpoint(address).ask(job(), tries=2)


def test_a_missing_client_names_the_extra(open_endpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingDependencyError, match=r"plainchant\[api\]"):
        open_endpoint("http://localhost:1/v1")


def test_no_tls_where_tls_is_asked_for(open_endpoint):
    with serving() as server, pytest.raises(ModelError, match="certificate cannot be verified, or it does not speak"):
        open_endpoint(server.address.replace("http:", "https:")).ask(job())


def test_the_key_goes_into_the_header_and_nowhere_else(open_endpoint, log, monkeypatch, caplog):
    caplog.set_level(0)
    monkeypatch.setenv(endpoint.KEY, f" {KEY}\n")
    with serving(key=KEY) as server:
        assert open_endpoint(server.address).ask(job()).text
        server.key = "another"
        with pytest.raises(ModelError, match=r"refuses the key \(status 401\)") as error:
            open_endpoint(server.address).ask(job())
        server.key = None
        server.faults[:] = [status(400, {"error": {"message": f"bad {KEY} header"}})]
        with pytest.raises(ModelError, match="bad … header") as other:
            open_endpoint(server.address).ask(job())
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    for place in (str(server.asked), str(log), caplog.text, str(error.value), str(other.value), repr(vars(other))):
        assert KEY not in place


@pytest.mark.parametrize("key", ["sk one", "sk\none", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_not_quoted(open_endpoint, monkeypatch, key):
    monkeypatch.setenv(endpoint.KEY, key)
    with pytest.raises(ConfigError, match="PLAINCHANT_API_KEY: holds characters") as error:
        open_endpoint("http://localhost:1/v1")
    assert key not in str(error.value)


def test_the_key_of_one_service_goes_to_that_service_alone(monkeypatch):
    monkeypatch.setenv(endpoint.OPENAI_KEY, KEY)
    for address in (
        "http://api.openai.com/v1",
        "https://api.openai.com.example.org/v1",
        "https://api.openai.com:444/v1",
        "http://localhost:8000/v1",
    ):
        assert endpoint._key(address) is None
    assert endpoint._key("https://api.openai.com/v1") == KEY
    monkeypatch.setenv(endpoint.KEY, "own")
    assert endpoint._key("https://api.openai.com/v1") == "own"


def test_no_more_requests_at_a_time_than_allowed(open_endpoint):
    for most in (1, 3):
        with serving(seconds=0.03) as server:
            answers = list(open_endpoint(server.address, most=most).answers(job(number) for number in range(12)))
        assert server.most == most
        assert sorted(done.place[1] for done, _ in answers) == list(range(12))


def test_jobs_are_taken_when_their_turn_comes(open_endpoint):
    taken = []

    def jobs():
        for number in range(10):
            taken.append(number)
            yield job(number)

    with serving() as server:
        answers = open_endpoint(server.address, most=2).answers(jobs())
        next(answers)
        assert len(taken) <= 3
        answers.close()
    assert len(server.asked) <= 3


def test_what_is_under_way_is_kept_when_another_fails(open_endpoint):
    kept = []
    with serving(faults=[slow(0.3), slow(0.3), status(400)]) as server, pytest.raises(ModelError, match="status 400"):
        for done, _ in open_endpoint(server.address, most=3).answers(job(number) for number in range(9)):
            kept.append(done.place[1])
    assert len(kept) == 2
    assert len(server.asked) == 3


def test_nobody_waits_for_answers_that_nobody_wants(open_endpoint):
    with serving(faults=[None, *[slow(1.0)] * 3]) as server:
        answers = open_endpoint(server.address, most=4).answers(job(number) for number in range(9))
        next(answers)
        began = time.monotonic()
        answers.close()
        assert time.monotonic() - began < 0.5
    assert len(server.asked) <= 4
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


def test_every_request_is_noted_before_it_is_sent_and_so_is_its_outcome(open_endpoint, log):
    noted = []
    with serving(text=lambda *_: noted.append(len(log)) or "one", faults=[dropped]) as server:
        open_endpoint(server.address).ask(job())
    assert noted == [3]
    assert [sorted(set(entry) - {"place", "try"}) for entry in log] == [
        ["body", "to"], ["failed"], ["body", "to"], ["completion_tokens", "prompt_tokens", "status"],
    ]  # fmt: skip
    assert log[0]["body"] == server.asked[0][1]
    assert log[0]["to"] == f"{server.address}/completions"
    assert [entry["try"] for entry in log] == [1, 1, 2, 2]


@pytest.mark.parametrize("said", [None, {"completion_tokens": -1}, {"completion_tokens": "many"}, [], {
    "completion_tokens": 2**40}, {"completion_tokens": True}])  # fmt: skip
def test_token_counts_that_make_no_sense_are_none(open_endpoint, said):
    with serving(faults=[status(200, GOOD | {"usage": said})]) as server:
        answer = open_endpoint(server.address).ask(job())
    assert answer == endpoint.Answer(" one", None, False)


def test_control_characters_and_lone_surrogates_are_treated_as_in_other_texts(open_endpoint):
    text = b'{"choices": [{"text": "a\\u0000b\\ud800c\\u001b[31md\\r\\ne"}]}'
    with serving(faults=[status(200, text)]) as server:
        assert open_endpoint(server.address).ask(job()).text == "a b\ufffdc [31md\ne"
