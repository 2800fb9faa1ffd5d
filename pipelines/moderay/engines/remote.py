"""A model that somebody serves already: an OpenAI-compatible Responses endpoint, asked over HTTP in
words.

The endpoint renders the prompt and takes the answer apart: the policy goes as instructions, the
content as the user's message, the effort as a field. What is no answer is of four kinds, by what is
done about it:

    429, 503                              `NotNowError`: all wait, as long as `Retry-After` says or
                                          ever longer
    another 5xx, a reset, half an answer  `BrokenReplyError`: asked again, some times; `NotNowError`
                                          where nobody else is answered either
    the same, and nobody is there         `EngineDeadError`: the host waits until somebody is, and
                                          finds a row that ends it each time
    401, 403, 404, a redirect             the person's to mend: the run ends with one sentence

The key comes from OPENAI_API_KEY in the environment of the process that asks, and goes over https
or to this machine only.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import os
import random
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from moderay.core.errors import StoppedError, UserError, first_line, nearest
from moderay.engines.base import (
    BrokenReplyError,
    EngineDeadError,
    NotNowError,
    Question,
    Reply,
    RequestFailedError,
    Token,
)

KEY = "OPENAI_API_KEY"
# Seconds that everybody waits where the endpoint does not say how long, doubled from time to time
# up to the second.
PAUSE_S, LONGEST_S = 0.5, 30.0
# Seconds without an answer to anybody after which a request that breaks off may not be its own
# fault: the endpoint is then asked something else.
DOUBTFUL_S = 5.0
# Seconds in which the endpoint must answer somebody; else the run ends, and goes on another time.
PATIENCE_S = 600.0
# Seconds a connection may take to come about, seconds in which the list of models must be there,
# and those in which an endpoint that is starting must answer. A host tries ten times one after the
# other: a server may take ten minutes to come back.
CONNECT_S, LIST_S, START_S = 10.0, 20.0, 60.0
# Looks at an endpoint before it is thought gone.
LOOKS = 3
# Requests refused from the first one on, none answered, after which the job is thought wrong and
# not the contents.
REFUSALS = 20
# The most alternatives to a token that the API gives.
LOGPROBS = 20
# Characters that are kept of what an endpoint says.
SAID = 300
# Tokens that an endpoint may put into its prompt and moderay does not, such as a date.
SLACK = 64


@dataclass(frozen=True)
class RemoteSpec:
    """A served model. `name`: as the endpoint calls it. `revision`, `dtype`, `quantization`,
    `kv_cache_dtype`: what the job states of it; nobody checks them, but they are part of the judge
    key. `logprobs`: log-probabilities are asked for, and verdicts have a probability.
    `max_num_seqs`: requests in flight. `max_model_len`: tokens of the longest prompt with its
    answer.
    """

    endpoint: str
    name: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    logprobs: bool = False
    max_num_seqs: int = 64
    max_model_len: int = 0
    gpus: int = 0
    # Windows are cut in the tokens of the real models, whatever is served.
    vocabulary_source: str | None = None

    def identity(self) -> Mapping[str, object]:
        """Not the endpoint: the same model is the same judge wherever it is served."""
        return {
            "api": "responses",
            "model": self.name,
            "revision": self.revision,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kv_cache_dtype": self.kv_cache_dtype,
            "logprobs": self.logprobs,
        }

    def here(self) -> RemoteSpec:
        return self

    async def build(self) -> RemoteEngine:
        """Waits for an endpoint that is starting. Raises `StoppedError` where it does not answer,
        `UserError` where it refuses the key or holds shorter prompts than the job's.
        """
        engine, deadline = RemoteEngine(self), time.monotonic() + START_S
        try:
            while (problem := await engine.problem()) is not None:
                if time.monotonic() > deadline:
                    raise StoppedError(
                        (
                            f"the endpoint {self.endpoint} does not answer ({problem}); what was "
                            "judged is saved, and the same command goes on"
                        ),
                        3,
                    )
                await asyncio.sleep(1)
        except BaseException:  # a cancelled start too
            engine.close()
            raise
        return engine


class RemoteEngine:
    """A session with an endpoint; as many requests at once as its spec says, the others wait."""

    def __init__(self, spec: RemoteSpec) -> None:
        self._spec, self._url = spec, spec.endpoint.rstrip("/")
        self._key = os.environ.get(KEY) if is_private(spec.endpoint) else None
        self._slots = asyncio.Semaphore(spec.max_num_seqs)
        self._connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            proxy=_proxy(spec.endpoint),
        )
        self._models: list[str] = []
        self._answered = False
        self._refused = 0
        self._failing: float | None = None  # since when nobody was answered
        self._resume, self._pause = (
            0.0,
            PAUSE_S,
        )  # when the endpoint may be asked again, and how long it was left alone the last time

    async def problem(self) -> str | None:
        """Why nobody can be asked just now, None where somebody is there. Raises `UserError` where
        the endpoint says what is wrong.
        """
        try:
            async with self._session.get(
                f"{self._url}/models", timeout=aiohttp.ClientTimeout(LIST_S), allow_redirects=False
            ) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            return _said(error)
        if answer.status >= 500:
            return f"HTTP status {answer.status}"
        if answer.status in (401, 403):
            raise self._refused_key(answer.status)
        if answer.status == 200:
            self._look(data)
        return None

    def _look(self, data: bytes) -> None:
        """What the list of models says, in an endpoint's own way or not at all."""
        try:
            listed = [model for model in json.loads(data)["data"] if isinstance(model, dict)]
        except (ValueError, KeyError, TypeError):
            return
        self._models = [str(model.get("id")) for model in listed]
        for model in listed:
            held = model.get("max_model_len")
            if (
                model.get("id") == self._spec.name
                and isinstance(held, int)
                and held < self._spec.max_model_len + SLACK
            ):
                raise UserError(
                    f"{self._spec.name} at {self._spec.endpoint} holds {held:,} tokens, but "
                    "policies, windows and budget need "
                    f"{self._spec.max_model_len + SLACK:,}: lower windows.tokens, or serve it "
                    "with more"
                )

    async def respond(self, question: Question) -> Reply:
        try:
            async with self._slots:
                if (rest := self._resume - time.monotonic()) > 0:
                    raise NotNowError(
                        "the endpoint asked for a pause", rest * random.uniform(1, 1.2)
                    )
                return await self._asked(question)
        except BrokenReplyError as error:
            raise await self._blamed(str(error)) from error

    async def _asked(self, question: Question) -> Reply:
        if self._session.closed:
            raise EngineDeadError("the endpoint was gone")
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                f"{self._url}/responses",
                data=self._body(question),
                headers=headers,
                allow_redirects=False,
            ) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenReplyError(_said(error)) from error
        if answer.status == 200:
            return self._reply(data)
        raise self._error(answer.status, answer.headers, data)

    async def _blamed(self, failed: str) -> Exception:
        """What a request that broke off is raised as: the endpoint may be gone, or answer nobody,
        or not answer this one.
        """
        for _ in range(LOOKS):
            if self._session.closed:
                return EngineDeadError(failed)
            if (problem := await self.problem()) is None:
                break
            await asyncio.sleep(PAUSE_S)
        else:
            return EngineDeadError(f"{failed}; {self._spec.endpoint}: {problem}")
        self._failing = self._failing or time.monotonic()
        if (
            time.monotonic() - self._failing < DOUBTFUL_S
            or self._resume > time.monotonic()
            or await self._answers()
        ):
            return BrokenReplyError(failed)
        return self._put_off(failed, {})

    async def _answers(self) -> bool:
        """Whether the endpoint answers a question that is nobody's row."""
        try:
            async with asyncio.timeout(LIST_S):
                await self._asked(Question("Answer with one word.", "Hello.", "low", max_tokens=32))
        except (BrokenReplyError, NotNowError, RequestFailedError, TimeoutError):
            return False
        return True

    def _reply(self, data: bytes) -> Reply:
        try:
            read = json.loads(data)
            if read["status"] in ("failed", "cancelled"):
                raise BrokenReplyError(f"{read['status']}{self._message(data)}")
            said = reply(read)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenReplyError(
                f"an answer that is none of the Responses API: {first_line(error)}"
            ) from error
        self._answered, self._refused, self._failing, self._pause = True, 0, None, PAUSE_S
        return said

    def _error(self, status: int, headers: Mapping[str, str], data: bytes) -> Exception:
        """What an answer without success is raised as."""
        said = f"HTTP status {status}{self._message(data)}"
        if status in (429, 503):
            return self._put_off(said, headers)
        if status in (401, 403):
            return self._refused_key(status)
        if status >= 500 or status == 408 or (status == 404 and self._answered):
            return BrokenReplyError(said)
        if status == 404:
            known = (
                f"; {nearest(self._spec.name, self._models)}"
                if self._models and self._spec.name not in self._models
                else ""
            )
            return UserError(
                f"{self._spec.endpoint} has no Responses API or no model {self._spec.name!r} "
                f"({said}){known} (see model: in the job)"
            )
        if status < 400:
            return UserError(
                f"{self._spec.endpoint} answers with a redirect ({said}): name in model.endpoint "
                "where it leads to"
            )
        self._refused += 1
        if not self._answered and self._refused >= REFUSALS:
            return UserError(
                f"{self._spec.endpoint} refuses every request ({said}): see model: in the job"
            )
        return RequestFailedError(said)

    def _put_off(self, said: str, headers: Mapping[str, str]) -> Exception:
        """Everybody waits, not just the one who was told."""
        now = time.monotonic()
        asked = _retry_after(headers)
        if asked is None and now >= self._resume:
            self._pause = min(LONGEST_S, 2 * self._pause)
        if asked is not None and asked > PATIENCE_S:
            return StoppedError(
                (
                    f"the endpoint asks to come back in {asked:,.0f} s ({said}); what was judged "
                    "is "
                    "saved, and the same command goes on then"
                ),
                3,
            )
        seconds = self._pause if asked is None else asked
        self._resume = max(self._resume, now + seconds)
        self._check_patience(said)
        return NotNowError(said, seconds * random.uniform(1, 1.2))

    def _check_patience(self, said: str) -> None:
        now = time.monotonic()
        self._failing = self._failing or now
        if now - self._failing > PATIENCE_S:
            raise StoppedError(
                (
                    f"the endpoint answered nobody for {PATIENCE_S:g} s (at last: {said}); what "
                    "was "
                    "judged is saved, and the same command goes on"
                ),
                3,
            )

    def _refused_key(self, status: int) -> UserError:
        where = f"the endpoint {self._spec.endpoint}"
        if self._key:
            return UserError(
                f"{where} refuses the key in {KEY} (HTTP status {status}): set another in the "
                "environment of the cluster's processes"
            )
        if not is_private(self._spec.endpoint):
            return UserError(
                f"{where} asks for a key (HTTP status {status}), which is never sent over plain "
                "http to another machine: serve it over https"
            )
        return UserError(
            f"{where} asks for a key (HTTP status {status}): set {KEY} in the environment of the "
            "cluster's processes"
        )

    def _message(self, data: bytes) -> str:
        """What the endpoint says of an error, without the key that it may have read back."""
        try:
            error = json.loads(data)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError):
            text = data[:SAID].decode("utf-8", "replace")
        text = " ".join((text.replace(self._key, "***") if self._key else text).split())[:SAID]
        return f": {text}" if text else ""

    def _body(self, question: Question) -> bytes:
        asked: dict[str, Any] = {
            "model": self._spec.name,
            "instructions": question.instructions,
            "input": [{"role": "user", "content": question.content}],
            "reasoning": {"effort": question.effort},
            "max_output_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": question.top_p,
            "store": False,
        }
        if question.labels:
            # A reasoning that is over, even an empty one: what follows is the answer.
            thought = [{"type": "reasoning_text", "text": question.thought}]
            asked["input"].append(
                {"type": "reasoning", "id": "rs_0", "summary": [], "content": thought}
            )
            asked["text"] = {
                "format": {
                    "type": "json_schema",
                    "name": "verdict",
                    "strict": True,
                    "schema": _schema(question.labels),
                }
            }
        if self._spec.logprobs:
            asked |= {"include": ["message.output_text.logprobs"], "top_logprobs": LOGPROBS}
        return json.dumps(asked, ensure_ascii=False).encode()

    def close(self) -> None:
        """What is in flight ends with an error."""
        self._session.detach()  # closed for whoever asks; its connections follow
        self._closing = asyncio.ensure_future(self._connector.close())


def reply(said: Mapping[str, Any]) -> Reply:
    """A response object of the API -> `Reply`. Raises KeyError, TypeError, ValueError or
    AttributeError for anything else.
    """
    thoughts = [
        part["text"]
        for item in said["output"]
        if item["type"] == "reasoning"
        for part in item.get("content") or ()
    ]
    answers = [item for item in said["output"] if item["type"] != "reasoning"]
    parts = _parts(answers[0]) if len(answers) == 1 else []
    alone = len(parts) == 1 and parts[0]["type"] == "output_text"
    usage = said.get("usage") or {}
    return Reply(
        reasoning=_valid("\n".join(thoughts)),
        answer=_valid(parts[0]["text"]) if alone else None,
        whole=alone and said["status"] == "completed",
        tokens=tuple(_token(token) for token in parts[0].get("logprobs") or ()) if alone else (),
        prompt_tokens=int(usage.get("input_tokens") or 0),
        cached_tokens=int((usage.get("input_tokens_details") or {}).get("cached_tokens") or 0),
        output_tokens=int(usage.get("output_tokens") or 0),
    )


def _parts(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What an answer consists of. vLLM 0.32 takes the second word of `<|channel|>final
    json<|message|>`, which its own grammar for JSON asks for, for the name of a tool, and the
    answer for what that is called with.
    """
    if item["type"] == "mcp_call" and item["server_label"] == "json":
        return [{"type": "output_text", "text": item["arguments"]}]
    return item.get("content") or [] if item["type"] == "message" else []


def _valid(text: str) -> str:
    """JSON can spell halves of characters, which no column of text takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _token(said: Mapping[str, Any]) -> Token:
    others = {other["token"]: float(other["logprob"]) for other in said.get("top_logprobs") or ()}
    return Token(said["token"], {**others, said["token"]: float(said["logprob"])})


def _schema(labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, which the header gives as such or as a date."""
    given = headers.get("Retry-After", "").strip()
    try:
        return max(PAUSE_S, float(given))
    except ValueError:
        pass
    try:
        return max(PAUSE_S, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None


def is_private(endpoint: str) -> bool:
    """Whether nobody else reads what goes there: over https, or within this machine."""
    url = urlsplit(endpoint)
    return url.scheme == "https" or _is_loopback(url.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy(endpoint: str) -> str | None:
    """The proxy that the environment names for it."""
    url = urlsplit(endpoint)
    host = url.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _said(error: BaseException) -> str:
    return first_line(error)[:SAID]
