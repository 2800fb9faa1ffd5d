"""A live session with an OpenAI-compatible Responses endpoint.

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
import json
from collections.abc import Mapping

import aiohttp

from moderay.core.errors import first_line
from moderay.engines.base import (
    AS_THE_ENDPOINT_SAYS,
    BrokenReplyError,
    EngineDeadError,
    NotNowError,
    Question,
    Reply,
    RequestFailedError,
)
from moderay.engines.remote import failures
from moderay.engines.remote.access import key_for, proxy_for
from moderay.engines.remote.backoff import PAUSE_S, Backoff, retry_after
from moderay.engines.remote.responses_api import reply, request_body

# Seconds without an answer to anybody after which a request that breaks off may not be its own
# fault: the endpoint is then asked something else.
DOUBTFUL_S = 5.0
# Seconds a connection may take to come about.
CONNECT_S = 10.0
# Seconds in which the list of models must be there, and a question that is nobody's row answered.
LIST_S = 20.0
# Looks at an endpoint before it is thought gone.
LOOKS = 3
# Requests refused from the first one on, none answered, after which the job is thought wrong and
# not the contents.
REFUSALS = 20
# Tokens that an endpoint may put into its prompt and moderay does not, such as a date.
SLACK = 64


class RemoteEngine:
    """A session with an endpoint; some requests at once, the others wait."""

    probability_by = AS_THE_ENDPOINT_SAYS

    def __init__(
        self, endpoint: str, model: str, *, logprobs: bool, max_num_seqs: int, max_model_len: int
    ) -> None:
        """Opens the session; connects at the first request.

        Args:
            endpoint: URL of the API, up to its version.
            model: As the endpoint calls it.
            logprobs: Whether log-probabilities are asked for.
            max_num_seqs: Requests in flight.
            max_model_len: Tokens of the longest prompt with its answer.
        """
        self._endpoint = endpoint
        self._url = endpoint.rstrip("/")
        self._model = model
        self._logprobs = logprobs
        self._needed_tokens = max_model_len + SLACK
        self._key = key_for(endpoint)
        self._slots = asyncio.Semaphore(max_num_seqs)
        self._connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            proxy=proxy_for(endpoint),
        )
        self._backoff = Backoff()
        self._models: list[str] = []
        self._answered = False
        self._refused = 0

    async def problem(self) -> str | None:
        """Why nobody can be asked just now, None where somebody is there.

        Raises:
            UserError: The endpoint says what is wrong.
        """
        try:
            async with self._session.get(
                f"{self._url}/models", timeout=aiohttp.ClientTimeout(LIST_S), allow_redirects=False
            ) as response:
                data = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            return failures.cause(error)
        if response.status >= 500:
            return f"HTTP status {response.status}"
        if response.status in (401, 403):
            raise failures.key_refused(self._endpoint, bool(self._key), response.status)
        if response.status == 200:
            self._check_models(data)
        return None

    def _check_models(self, data: bytes) -> None:
        """Reads the list of models, which endpoints write in their own way or not at all."""
        try:
            models = [model for model in json.loads(data)["data"] if isinstance(model, dict)]
        except (ValueError, KeyError, TypeError):
            return
        self._models = [str(model.get("id")) for model in models]
        for model in models:
            held = model.get("max_model_len")
            if (
                model.get("id") == self._model
                and isinstance(held, int)
                and held < self._needed_tokens
            ):
                raise failures.too_short(self._endpoint, self._model, held, self._needed_tokens)

    async def respond(self, question: Question) -> Reply:
        """What the model answers.

        Raises:
            NotNowError: The endpoint wants to be left alone for some seconds.
            BrokenReplyError: No answer came, or half of one.
            EngineDeadError: Nobody is there any more.
            RequestFailedError: The endpoint refuses this request.
            StoppedError: Nobody was answered for too long.
            UserError: The job or the key is wrong.
        """
        try:
            async with self._slots:
                if self._backoff.remaining > 0:
                    raise self._backoff.refusal()
                return await self._post(question)
        except BrokenReplyError as error:
            raise await self._diagnosis(str(error)) from error

    async def _post(self, question: Question) -> Reply:
        if self._session.closed:
            raise EngineDeadError("the endpoint was gone")
        try:
            async with self._session.post(
                f"{self._url}/responses",
                data=request_body(question, self._model, self._logprobs),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                data = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenReplyError(failures.cause(error)) from error
        if response.status == 200:
            return self._reply(data)
        raise self._error(response.status, response.headers, data)

    async def _diagnosis(self, failed: str) -> Exception:
        """What a request that broke off is raised as.

        The endpoint may be gone, or answer nobody, or not answer this one.
        """
        for _ in range(LOOKS):
            if self._session.closed:
                return EngineDeadError(failed)
            if (problem := await self.problem()) is None:
                break
            await asyncio.sleep(PAUSE_S)
        else:
            return EngineDeadError(f"{failed}; {self._endpoint}: {problem}")
        if (
            self._backoff.failing_seconds() < DOUBTFUL_S
            or self._backoff.remaining > 0
            or await self._answers()
        ):
            return BrokenReplyError(failed)
        return self._backoff.put_off(failed)

    async def _answers(self) -> bool:
        """Whether the endpoint answers a question that is nobody's row."""
        try:
            async with asyncio.timeout(LIST_S):
                await self._post(Question("Answer with one word.", "Hello.", "low", max_tokens=32))
        except (BrokenReplyError, NotNowError, RequestFailedError, TimeoutError):
            return False
        return True

    def _reply(self, data: bytes) -> Reply:
        try:
            response = json.loads(data)
            if response["status"] in ("failed", "cancelled"):
                raise BrokenReplyError(
                    f"{response['status']}{failures.error_message(data, self._key)}"
                )
            answer = reply(response)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenReplyError(
                f"an answer that is none of the Responses API: {first_line(error)}"
            ) from error
        self._answered = True
        self._refused = 0
        self._backoff.answered()
        return answer

    def _error(self, status: int, headers: Mapping[str, str], data: bytes) -> Exception:
        """What an answer without success is raised as."""
        message = f"HTTP status {status}{failures.error_message(data, self._key)}"
        if status in (429, 503):
            return self._backoff.put_off(message, retry_after(headers))
        if status >= 500 or status == 408 or (status == 404 and self._answered):
            return BrokenReplyError(message)
        if status in (401, 403):
            return failures.key_refused(self._endpoint, bool(self._key), status)
        if status == 404:
            return failures.not_there(self._endpoint, self._model, self._models, message)
        if status < 400:
            return failures.redirected(self._endpoint, message)
        return self._refusal(message)

    def _refusal(self, message: str) -> Exception:
        """The endpoint understood this request and does not want it."""
        self._refused += 1
        if not self._answered and self._refused >= REFUSALS:
            return failures.all_refused(self._endpoint, message)
        return RequestFailedError(message)

    def close(self) -> None:
        """What is in flight ends with an error."""
        self._session.detach()  # closed for whoever asks; its connections follow
        self._closing = asyncio.ensure_future(self._connector.close())
