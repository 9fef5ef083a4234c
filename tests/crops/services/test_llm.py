"""The LLM client against a real local HTTP server: cache, retries, budget, concurrency, and one line for
every failure.
"""

import email.utils
import time

import pytest

from crops.errors import InputError, ServiceError
from crops.services import llm
from tests.crops.services.endpoint import completion, served


def bodies(count):
    return [{"model": "m", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(count)]


def ask(url, questions, cache, **settings):
    given = {"concurrency": 4, "timeout_s": 5.0, "retries": 3, "budget": 10**9} | settings
    return llm.ask(url, questions, cache=cache / "answers.sqlite", **given)


def echo(_number, body):
    return 200, {}, completion("answer to " + body["messages"][-1]["content"])


def test_answers_come_in_the_order_of_the_questions_and_are_asked_once(tmp_path):
    with served(echo) as endpoint:
        first = ask(endpoint.url, bodies(20), tmp_path)
        again = ask(endpoint.url, bodies(25), tmp_path)
    assert [a.text for a in again] == [f"answer to question {n}" for n in range(25)]
    assert [a.text for a in first] == [a.text for a in again[:20]]
    assert len(endpoint.bodies) == 25
    assert [a.cached for a in again] == [True] * 20 + [False] * 5
    assert [p.name for p in tmp_path.iterdir()] == ["answers.sqlite"]


def test_another_model_or_setting_is_another_question(tmp_path):
    with served(echo) as endpoint:
        ask(endpoint.url, bodies(1), tmp_path)
        ask(endpoint.url, [body | {"temperature": 0.5} for body in bodies(1)], tmp_path)
    assert len(endpoint.bodies) == 2


def test_forgotten_answers_are_asked_again(tmp_path):
    with served(echo) as endpoint:
        ask(endpoint.url, bodies(3), tmp_path)
        llm.forget(tmp_path / "answers.sqlite", bodies(2))
        found = ask(endpoint.url, bodies(3), tmp_path)
    assert [a.cached for a in found] == [False, False, True]


def test_no_more_at_once_than_allowed(tmp_path):
    def slow(number, body):
        time.sleep(0.05)
        return echo(number, body)

    with served(slow) as endpoint:
        ask(endpoint.url, bodies(12), tmp_path, concurrency=3)
    assert endpoint.most == 3


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_failing_endpoint_is_asked_again(tmp_path, status):
    with served(
        lambda n, body: (status, {"Retry-After": "0"}, "busy") if n < 2 else echo(n, body)
    ) as endpoint:
        found = ask(endpoint.url, bodies(1), tmp_path)
    assert (found[0].text, len(endpoint.bodies)) == ("answer to question 0", 3)


@pytest.mark.parametrize("said", ["1", lambda: email.utils.formatdate(time.time() + 4, usegmt=True)])
def test_retry_after_is_obeyed_in_seconds_and_as_a_date(tmp_path, said):
    """Without it the first wait is at most 1.2 s (0.2 s and up to 1 s of jitter), so only the lower bound is
    looked at. A date is cut to its second and counts from before the servers start, so it lies further off.
    """
    header = said if isinstance(said, str) else said()
    with served(lambda n, body: (503, {"Retry-After": header}, "") if n == 0 else echo(n, body)) as endpoint:
        ask(endpoint.url, bodies(1), tmp_path)
    assert endpoint.times[1] - endpoint.times[0] >= 0.9


def test_an_endpoint_that_asks_for_hours_is_not_waited_for(tmp_path):
    with served(lambda _n, _body: (429, {"Retry-After": "7200"}, "")) as endpoint:
        with pytest.raises(ServiceError, match="answers 429 and asks to come back in 7200 s"):
            ask(endpoint.url, bodies(1), tmp_path)
        assert len(endpoint.bodies) == 1


def test_budget_holds_over_restarts(tmp_path):
    """10 tokens an answer, budget 50, one at a time: five are asked. A second run may spend nothing more, and
    gives the same.
    """
    with served(echo) as endpoint:
        first = ask(endpoint.url, bodies(9), tmp_path, concurrency=1, budget=50)
        again = ask(endpoint.url, bodies(9), tmp_path, concurrency=1, budget=50)
        more = ask(endpoint.url, bodies(9), tmp_path, concurrency=1, budget=70)
    assert [a.text is None for a in first] == [a.text is None for a in again] == [False] * 5 + [True] * 4
    assert sum(a.text is not None for a in more) == 7
    assert len(endpoint.bodies) == 7


FAILURES = {
    "500": (
        lambda _n, _b: (500, {"Retry-After": "0"}, "oops"),
        "answers 500 \\(3 tries\\); what was answered is kept",
    ),
    "refusal": (lambda _n, _b: (401, {}, "no key"), "refuses with 401: no key"),
    "no JSON": (lambda _n, _b: (200, {}, "<html>"), "not an OpenAI-compatible chat completion: <html>"),
    "other JSON": (lambda _n, _b: (200, {}, {"choices": []}), "not an OpenAI-compatible chat completion"),
    "a list": (lambda _n, _b: (200, {}, [1, 2]), "not an OpenAI-compatible chat completion"),
    "odd usage": (
        lambda _n, _b: (200, {}, completion("x") | {"usage": "much"}),
        "not an OpenAI-compatible chat completion",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_is_one_line(tmp_path, name):
    reply, says = FAILURES[name]
    with served(reply) as endpoint, pytest.raises(ServiceError, match=says) as raised:
        ask(endpoint.url, bodies(30), tmp_path)
    assert "\n" not in str(raised.value)
    assert len(endpoint.bodies) <= 12, "goes on asking an endpoint that has failed"


@pytest.mark.parametrize(
    "headers", [{"X-Before-S": "0.6"}, {"X-Per-Byte-S": "0.05"}], ids=["late", "trickling"]
)
def test_a_slow_endpoint_runs_out_of_time(tmp_path, headers):
    """It is the whole answer that counts: of the trickling one each byte alone comes in time."""
    with (
        served(lambda n, body: (200, headers, echo(n, body)[2])) as endpoint,
        pytest.raises(ServiceError, match=r"no answer within 0.3 s \(1 tries\)"),
    ):
        ask(endpoint.url, bodies(1), tmp_path, timeout_s=0.3, retries=1)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/v1", "cannot be reached"),
        ("nowhere", "cannot be reached"),
        ("http://localhost:port/v1", "not a URL"),
    ],
)
def test_an_endpoint_that_is_down_or_no_url(tmp_path, url, says):
    with pytest.raises(ServiceError, match=says):
        ask(url, bodies(2), tmp_path, retries=1)


def test_what_was_answered_before_a_failure_is_kept(tmp_path):
    with (
        served(lambda n, b: echo(n, b) if n < 6 else (400, {}, "enough")) as endpoint,
        pytest.raises(ServiceError),
    ):
        ask(endpoint.url, bodies(10), tmp_path, concurrency=1)
    with served(echo) as endpoint:
        ask(endpoint.url, bodies(10), tmp_path)
    assert len(endpoint.bodies) == 4


def test_a_refusal_without_text_is_an_empty_answer(tmp_path):
    with served(lambda _n, _b: (200, {}, {"choices": [{"message": {"content": None}}]})) as endpoint:
        assert ask(endpoint.url, bodies(1), tmp_path)[0].text == ""


def test_a_broken_cache_is_named(tmp_path):
    (tmp_path / "answers.sqlite").write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(InputError, match=r"answers.sqlite: not a cache of answers"):
        ask("http://127.0.0.1:9/v1", bodies(1), tmp_path)
