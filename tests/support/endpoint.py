"""A Responses API that answers by the words of a content, in the form that vLLM gives: for tests of
what stands before it.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

NAME = "safeguard"
# Of contents with these words; of all others it is SP0. P is of the label, shared evenly by the
# others.
LABELS = {"prize": ("SP4", 0.8), "shop": ("SP2", 0.6)}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoint:
    """A served model that keeps what it is sent.

    A content with `rambling` in it is only answered where the answer is forced, one with `babble`
    never, one with `refused` with status 400.

    Attributes:
        requests: Every request's body, as it came.
        keys: The Authorization headers.
    """

    def __init__(
        self, logprobs: bool = False, key: str | None = None, seconds: float = 0.0
    ) -> None:
        self._logprobs, self._key, self._seconds = logprobs, key, seconds
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.keys.add(request.headers.get("Authorization"))
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response(
                {"error": {"message": "Incorrect API key provided"}}, status=401
            )
        if request.path == "/v1/models":
            return web.json_response(
                {"data": [{"id": NAME, "owned_by": "vllm", "max_model_len": 131072}]}
            )
        if request.path != "/v1/responses":
            return web.json_response({"detail": "Not Found"}, status=404)
        body = await request.json()
        self.requests.append(body)
        await asyncio.sleep(self._seconds)
        if body["model"] != NAME:
            return web.json_response(
                {"error": {"message": f"The model `{body['model']}` does not exist."}}, status=404
            )
        content = body["input"][0]["content"]
        if "refused" in content:
            return web.json_response(
                {
                    "error": {
                        "message": f"content is refused; {request.headers.get('Authorization')}"
                    }
                },
                status=400,
            )
        return web.json_response(self._response(body, content))

    def _response(self, body: dict[str, Any], content: str) -> dict[str, Any]:
        forced = "text" in body
        label, p = next(
            (likely for word, likely in LABELS.items() if word in content), ("SP0", 0.9)
        )
        whole = "babble" not in content and (forced or "rambling" not in content)
        answer = (
            json.dumps({"label": label} if forced else {"label": label, "rationale": "A reason."})
            if whole
            else "what now"
        )
        output: list[dict[str, Any]] = []
        if not forced:
            thought = {
                "type": "reasoning_text",
                "text": "on and on " * 300 if "rambling" in content else "Short.",
            }
            output.append({"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought]})
        if forced or "rambling" not in content:
            text = {
                "type": "output_text",
                "text": answer,
                "annotations": [],
                "logprobs": self._tokens(answer, label, p),
            }
            output.append(
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": [text],
                }
            )
        status = "completed" if forced or "rambling" not in content else "incomplete"
        usage = {
            "input_tokens": 700,
            "input_tokens_details": {"cached_tokens": 640},
            "output_tokens": 20,
        }
        return {
            "id": "resp_1",
            "object": "response",
            "status": status,
            "output": output,
            "usage": usage,
        }

    def _tokens(self, answer: str, label: str, p: float) -> list[dict[str, Any]] | None:
        """`{"label": "` `SP` `4` and the rest, with the other labels' digits beside the label's."""
        if not self._logprobs or label not in answer:
            return None
        before, _, after = answer.partition(label)
        digits = {digit: math.log(p if digit == label[2] else (1 - p) / 2) for digit in "024"}
        tokens = [(before, {}), ("SP", {"SP": -0.01, "**": -5.0}), (label[2], digits), (after, {})]
        return [
            {
                "token": text,
                "logprob": others.get(text, 0.0),
                "top_logprobs": [
                    {"token": other, "logprob": value} for other, value in others.items()
                ],
            }
            for text, others in tokens
        ]


@asynccontextmanager
async def served(handle: Handler) -> AsyncIterator[str]:
    """Serve on a free port of this machine, in this event loop; the URL without a path."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextmanager
def served_beside(handle: Handler) -> Iterator[str]:
    """The same in a thread of its own."""
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with served(handle) as url:
            urls.append(url)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()
