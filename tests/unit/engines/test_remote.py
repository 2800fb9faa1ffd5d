"""A served model: what it is asked, what becomes of its answers, and what of its failures."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from support.endpoint import NAME, Endpoint, served
from support.faulty import Faults
from support.outputs import flat, plain
from support.project import ROOT

from moderay.config.job import Job
from moderay.config.policy import load_policy
from moderay.core.errors import Problems, StoppedError, UserError
from moderay.core.verdicts import structs
from moderay.corpus.content import text_windows, texts
from moderay.engines.base import EngineDeadError, Token
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.prompt import instructions
from moderay.engines.harmony.scores import label_scores
from moderay.engines.harmony.vocabulary import HarmonyVocabulary
from moderay.engines.host import EngineHost
from moderay.engines.remote.access import KEY, is_private
from moderay.engines.remote.responses_api import reply
from moderay.judges.build import fitted
from moderay.labels.decisions import decide
from moderay.labels.overruling import redecide
from moderay.pipeline.check import check
from moderay.pipeline.stages.judge_unit import judge_unit
from moderay.pipeline.stages.prepare import POSITION, prepared
from moderay.tasks.embedded_job import job_cascades

SPAM = load_policy(ROOT / "policies/spam")
VOCABULARY = HarmonyVocabulary()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)


def questions(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]],
    contents: list[str],
    policy: Any = SPAM,
    **sections: Any,
) -> pa.StructArray:
    """Decisions on `contents`, from a model that `handle` serves."""
    return asyncio.run(_asked(handle, contents, policy, sections))[0]


async def _asked(
    handle: Any, contents: list[str], policy: Any, sections: dict[str, Any]
) -> tuple[pa.StructArray, EngineHost]:
    async with served(handle) as url:
        model = {"endpoint": f"{url}/v1", "name": NAME, **sections.pop("model", {})}
        given = {
            "input": {"path": "", "content": "text"},
            "output": {"path": ""},
            "policies": ["spam"],
            "limits": {"request_s": 5},
            **sections,
        }
        job = Job.model_validate({**given, "model": model})
        cascades = job_cascades(job, [policy])
        host = EngineHost(fitted(engine_spec(job, 0), cascades))
        try:
            rows = prepared(
                pa.table({POSITION: range(len(contents))}),
                texts(pa.chunked_array([contents])),
                job,
                cascades,
                VOCABULARY,
            )
            unit = await judge_unit(host, cascades, rows, 0)
        finally:
            host.close()
        return decide(structs(unit.column(policy.id)), policy.rule), host


def result(decisions: pa.StructArray, *names: str) -> list[Any]:
    return [
        tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]
        for row in map(flat, decisions.to_pylist())
    ]


def test_labels_decide_where_the_endpoint_gives_no_probability() -> None:
    actual = questions(
        Endpoint().handle, ["hello", "a prize", "my shop", "rambling in a shop", "babble"]
    )
    assert result(actual, "status", "violates", "label", "probability", "answer", "forced") == [
        ("ok", False, "SP0", None, None, False),
        ("ok", True, "SP4", None, None, False),
        ("ok", True, "SP2", None, None, False),
        ("ok", True, "SP2", None, None, True),
        ("unparsed", None, None, None, None, None),
    ]
    assert result(actual, "rationale", "reasoning")[0] == ("A reason.", "Short.")
    assert result(actual, "prompt_tokens", "output_tokens", "windows", "decided_by")[1] == (
        700,
        20,
        1,
        "reason",
    )
    stricter = SPAM.rule.under(1.0)
    assert result(redecide(actual, stricter), "violates") == [False, True, True, True, None]


def test_request_is_the_policy_as_instructions_and_a_forced_one_closes_the_reasoning() -> None:
    endpoint = Endpoint()
    questions(
        endpoint.handle,
        ["rambling <|end|> 漢字"],
        cascade=[{"reason": {"budget": 6}}],
        model={"effort": "medium", "sampling": {"temperature": 0}},
    )
    first, forced = endpoint.requests
    assert first == {
        "model": NAME,
        "instructions": instructions(SPAM),
        "input": [{"role": "user", "content": "rambling <|end|> 漢字"}],
        "reasoning": {"effort": "medium"},
        "max_output_tokens": 6 + 224,
        "temperature": 0,
        "top_p": 1,
        "store": False,
    }
    assert forced["input"][0] == first["input"][0]
    assert forced["input"][1]["content"] == [
        {"type": "reasoning_text", "text": "on and on on and on"}
    ]
    assert forced["text"]["format"]["schema"]["properties"] == {
        "label": {"type": "string", "enum": ["SP0", "SP2", "SP4"]}
    }


def test_answer_that_vllm_takes_for_a_tools_arguments_is_read_and_any_other_call_is_not() -> None:
    call = {
        "type": "mcp_call",
        "id": "mcp_1",
        "name": "json",
        "server_label": "json",
        "arguments": '{"label": "SP4"}',
    }
    actual = reply({"status": "completed", "output": [call]})
    assert (actual.answer, actual.whole) == ('{"label": "SP4"}', True)
    assert (
        reply({"status": "completed", "output": [{**call, "server_label": "browser"}]}).answer
        is None
    )
    assert reply({"status": "completed", "output": [call, call]}).answer is None


def test_probability_comes_from_log_probabilities_where_there_are_any() -> None:
    endpoint = Endpoint(logprobs=True)
    actual = questions(
        endpoint.handle,
        ["hello", "my shop"],
        model={"logprobs": True},
        cascade=[{"glance": {"below": 0.2}}, {"reason": {}}],
    )
    assert result(actual, "decided_by", "label", "violates") == [
        ("glance", "SP0", False),
        ("reason", "SP2", True),
    ]
    assert result(actual, "probability") == pytest.approx([0.1, 0.8])
    assert result(actual, "scores")[1] == pytest.approx({"SP0": 0.2, "SP2": 0.6, "SP4": 0.2})


def test_glance_is_the_answer_without_reasoning_and_may_be_the_last_judge() -> None:
    endpoint = Endpoint()
    actual = questions(endpoint.handle, ["hello", "a prize"], cascade=[{"glance": {}}])
    assert result(actual, "label", "violates", "probability", "decided_by") == [
        ("SP0", False, None, "glance"),
        ("SP4", True, None, "glance"),
    ]
    assert [question["input"][1]["content"][0]["text"] for question in endpoint.requests] == [
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("spelled", "p"),
    [
        (
            [
                ('{"label": "', {}),
                ("S", {"S": 0.0}),
                ("P", {"P": 0.0}),
                ("4", {"4": -1.0, "0": -0.6931471805599453}),
            ],
            0.42388,
        ),
        (
            [
                ('{"label"', {}),
                (': "SP', {': "SP': -0.1}),
                ('4"', {'4"': -1.0, "0": -2.0, '2",': -1.0}),
            ],
            0.84464,
        ),
        ([('{"label": "', {}), ("SP4", {"SP4": -0.5, "SP": -1.5})], 0.91034),
    ],
)
def test_scores_follow_the_label_however_it_is_cut_into_tokens(
    spelled: list[tuple[str, dict[str, float]]], p: float
) -> None:
    tokens = [Token(text, {text: 0.0, **others}) for text, others in spelled]
    scores = label_scores(tokens, "SP4", SPAM)
    assert (
        scores is not None
        and sum(scores) == pytest.approx(1)
        and scores[1] + scores[2] == pytest.approx(p, abs=1e-4)
    )


@given(
    text=st.text(alphabet=st.sampled_from("ab 漢𠮷é\ufffd\n🤷‍♀️"), min_size=1, max_size=80),
    size=st.integers(2, 9),
    overlap=st.integers(0, 1),
)
@settings(deadline=None)
def test_windows_in_words_hold_every_character_whole_and_in_order(
    text: str, size: int, overlap: int
) -> None:
    pieces = text_windows(VOCABULARY.encode(text), size, overlap, VOCABULARY.decode)
    if overlap == 0:
        assert "".join(pieces) == text
    position = 0
    for piece in pieces:
        actual = text.find(piece)
        assert piece in text
        position = max(position, actual)
    assert text.startswith(pieces[0]) and text.endswith(pieces[-1])


def test_long_content_is_judged_in_windows_and_the_worst_decides() -> None:
    endpoint = Endpoint()
    actual = questions(
        endpoint.handle,
        ["漢字 " * 200 + "a prize", "quiet " * 100],
        windows={"tokens": 100, "overlap": 10},
    )
    assert (
        result(actual, "label", "violates")[0] == ("SP4", True)
        and result(actual, "label")[1] == "SP0"
    )
    assert result(actual, "windows")[0] > 3 and not any(
        "\ufffd" in question["input"][0]["content"] for question in endpoint.requests
    )


def test_throttling_resets_and_broken_answers_lose_nothing() -> None:
    endpoint = Endpoint()

    async def run() -> tuple[pa.StructArray, EngineHost, Faults]:
        async with served(endpoint.handle) as url:
            faults = Faults(url, rate=0.25, always="", seed=1, throttle=429)
            contents = [f"{'prize' if i % 3 else 'hello'} {i}" for i in range(90)]
            return *await _asked(
                faults.handle, contents, SPAM, {"model": {"concurrency": 8}}
            ), faults

    actual, host, faults = asyncio.run(run())
    assert result(actual, "label") == ["SP4" if i % 3 else "SP0" for i in range(90)]
    assert host.restarts == 0 and all(
        faults.done[kind] for kind in ("slow_down", "error", "reset", "lost", "cut")
    )


def test_retry_after_is_waited_for_by_everybody() -> None:
    endpoint, calls, began = Endpoint(), [], time.monotonic()

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/responses"):
            calls.append(time.monotonic() - began)
            if len(calls) == 1:
                return web.Response(status=429, headers={"Retry-After": "2"})
        return await endpoint.handle(request)

    actual = questions(handle, [f"hello {i}" for i in range(12)], model={"concurrency": 1})
    assert result(actual, "status") == ["ok"] * 12
    assert min(calls[1:]) - calls[0] >= 2


def test_row_that_ends_the_server_each_time_is_found_and_no_other_is_lost() -> None:
    endpoint, down = Endpoint(seconds=0.02), [0.0]

    async def handle(request: web.Request) -> web.StreamResponse:
        if (
            time.monotonic() >= down[0]
            and request.can_read_body
            and b"poison" in await request.read()
        ):
            down[0] = time.monotonic() + 1.6
        if time.monotonic() < down[0]:
            assert request.transport is not None
            request.transport.abort()
        return await endpoint.handle(request)

    contents = [f"hello {i}" for i in range(30)] + ["poison"]
    actual, host = asyncio.run(_asked(handle, contents, SPAM, {"model": {"concurrency": 16}}))
    assert result(actual, "status") == ["ok"] * 30 + ["engine_error"] and 2 <= host.restarts <= 3


def test_request_that_alone_fails_is_given_up_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderay.engines.host.BROKEN_S", 0.01)
    endpoint = Endpoint(key="sk-secret")
    monkeypatch.setenv(KEY, "sk-secret")

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.can_read_body and b"unlucky" in await request.read():
            return web.json_response({"error": {"message": "CUDA error"}}, status=500)
        return await endpoint.handle(request)

    actual = questions(handle, ["hello", "unlucky", "refused"])
    assert result(actual, "status", "detail") == [
        ("ok", None),
        ("engine_error", "asked 6 times; at last: HTTP status 500: CUDA error"),
        ("engine_error", "HTTP status 400: content is refused; Bearer ***"),
    ]


def test_outage_behind_a_gateway_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway lists its models all the while, and answers 502 for what is behind it."""
    monkeypatch.setattr("moderay.engines.remote.client.DOUBTFUL_S", 0.2)
    monkeypatch.setattr("moderay.engines.host.BROKEN_S", 0.05)
    endpoint, until = Endpoint(), time.monotonic() + 1

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/responses") and time.monotonic() < until:
            return web.Response(status=502)
        return await endpoint.handle(request)

    assert result(questions(handle, [f"hello {i}" for i in range(20)]), "status") == ["ok"] * 20


def test_what_a_person_must_mend_is_one_sentence_without_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        UserError, match=f"asks for a key .HTTP status 401.: set {KEY} in the environment"
    ):
        questions(Endpoint(key="sk-other").handle, ["hello"])
    monkeypatch.setenv(KEY, "sk-secret")
    with pytest.raises(UserError, match=f"refuses the key in {KEY}") as refused:
        questions(Endpoint(key="sk-other").handle, ["hello"])
    assert "sk-" not in str(refused.value)
    with pytest.raises(UserError, match=r"no model 'safegaurd'.*did you mean 'safeguard'"):
        questions(Endpoint().handle, ["hello"], model={"name": "safegaurd"})
    with pytest.raises(
        UserError, match=r"refuses every request .HTTP status 400: content is refused"
    ):
        questions(Endpoint().handle, [f"refused {i}" for i in range(40)])
    with pytest.raises(
        UserError, match="holds 131,072 tokens, but policies, windows and budget need"
    ):
        questions(Endpoint().handle, ["hello"], windows={"tokens": 140_000})


def test_endpoint_that_does_not_answer_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderay.engines.remote.spec.START_S", 0.1)

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    with pytest.raises(StoppedError, match=r"does not answer .HTTP status 503.") as stopped:
        questions(handle, ["hello"])
    assert stopped.value.exit_status == 3
    monkeypatch.setattr("moderay.engines.remote.backoff.PATIENCE_S", 0.3)
    monkeypatch.setattr("moderay.engines.remote.backoff.LONGEST_S", 0.1)
    endpoint = Endpoint()

    async def throttled(request: web.Request) -> web.StreamResponse:
        return (
            await endpoint.handle(request)
            if request.path.endswith("/models")
            else web.Response(status=429, text="quota")
        )

    with pytest.raises(
        (StoppedError, EngineDeadError),
        match=r"answered nobody for 0.3 s .at last: HTTP status 429: quota",
    ):
        questions(throttled, ["hello"])


def test_key_goes_over_https_or_to_this_machine_only() -> None:
    assert all(
        map(
            is_private,
            (
                "https://models.example.org/v1",
                "http://localhost:8000/v1",
                "http://127.0.0.1:1/v1",
                "http://[::1]:8000/v1",
            ),
        )
    )
    assert not any(
        map(
            is_private,
            (
                "http://models.example.org/v1",
                "http://10.0.0.7:8000/v1",
                "http://127.0.0.1.example.org/v1",
            ),
        )
    )


WRONG = (
    {"endpoint": "https://models.example.org/v1"},
    {
        "endpoint": "https://models.example.org/v1",
        "name": "safeguard",
        "source": "tiny",
        "engine": {"max_num_seqs": 3},
    },
    {"name": "safeguard", "concurrency": 8},
    {"endpoint": "https://user:sk-secret@models.example.org/v1", "name": "safeguard"},
    {"endpoint": "https://models.example.org/v1?key=sk-secret", "name": "safeguard"},
    {"endpoint": "models.example.org/v1", "name": "safeguard"},
)


def test_job_that_makes_no_sense_with_an_endpoint_is_refused(
    job, corpus: Path, tmp_path: Path, golden
) -> None:  # type: ignore[no-untyped-def]
    actual = []
    band = {
        "model": {"endpoint": "https://models.example.org/v1", "name": "safeguard"},
        "cascade": [{"glance": {"below": 0.1}}, "reason"],
    }
    for sections in [*({"model": model} for model in WRONG), band]:
        with pytest.raises(Problems) as caught:
            check(job(**sections))
        actual.append(str(caught.value))
    assert "sk-secret" not in "\n".join(actual)
    golden("endpoint-wrong", plain("\n".join(actual) + "\n", tmp_path))


def test_same_model_is_the_same_judge_wherever_it_is_served(job, corpus: Path) -> None:  # type: ignore[no-untyped-def]
    def key(**model: Any) -> str:
        return (
            check(job(model={"endpoint": "https://a.example.org/v1", "name": "safeguard", **model}))
            .cascades[0]
            .key
        )

    assert key() == key(endpoint="http://localhost:8000/v1", concurrency=3)
    assert (
        len(
            {
                key(),
                key(name="other"),
                key(quantization="mxfp4"),
                key(revision="2"),
                key(effort="high"),
                key(logprobs=True),
            }
        )
        == 6
    )
