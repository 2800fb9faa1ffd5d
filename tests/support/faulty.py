"""A proxy before an S3 server or a model's endpoint that fails some calls, in six ways; `python
tests/support/faulty.py --upstream URL` prints its port.

    slow_down  503 SlowDown (or `--throttle` and Retry-After: 1), and the call is not made
    error      500 InternalError, and the call is not made
    reset      the connection is reset, and the call is not made
    lost       the call is made, and the connection is reset instead of an answer
    cut        the call is made, and its answer breaks off half-way
    slow       the answer's body comes in ten pieces, a second in all

A server that is not there is a reset. GET /-/faults returns how often each was done, as JSON,
beside the number of calls. POST /-/faults sets what fails from now on: JSON with `rate`, `kinds`,
and `late`, seconds for which a new object is in no listing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import time
from collections import Counter
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from yarl import URL

KINDS = ("slow_down", "error", "reset", "lost", "cut", "slow")
BODY = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
# Of one connection or of one hop, and not the message's.
OWN = {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}
COUNTED = re.compile(rb"<KeyCount>(\d+)<")
LISTED = re.compile(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", re.DOTALL)


class Faults:
    """`rate`: share of calls that fail. `always`: a pattern over `METHOD /path bytes=range`; such
    calls get 503 each time. `throttle`: the status of a `slow_down`.
    """

    def __init__(
        self, upstream: str, rate: float, always: str, seed: int, throttle: int = 503
    ) -> None:
        self._throttle = throttle
        self._upstream, self._rate, self._always = (
            upstream,
            rate,
            re.compile(always) if always else None,
        )
        self._random, self.done = random.Random(seed), Counter[str]()
        self._kinds: tuple[str, ...] = KINDS
        self._late, self._created = 0.0, dict[str, float]()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/-/faults":
            if request.method == "POST":
                self._set(**await request.json())
            return web.json_response(self.done)
        self.done["calls"] += 1
        body = await request.read()
        kind = self._kind(f"{request.method} {request.path} {request.headers.get('Range', '')}")
        if kind:
            self.done[kind] += 1
        if kind == "slow_down":
            retry = {} if self._throttle == 503 else {"Retry-After": "1"}
            return web.Response(
                status=self._throttle,
                headers=retry,
                text=BODY.format(code="SlowDown"),
                content_type="application/xml",
            )
        if kind == "error":
            return web.Response(
                status=500, text=BODY.format(code="InternalError"), content_type="application/xml"
            )
        if kind == "reset":
            return self._abort(request)
        try:
            status, headers, data = await self._made(request, body)
        except aiohttp.ClientError:
            return self._abort(request)
        data = self._as_listed(request, status, data)
        if kind == "lost":
            return self._abort(request)
        answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = (
            int(headers.get("Content-Length", 0)) if request.method == "HEAD" else len(data)
        )
        await answer.prepare(request)
        if kind == "cut":
            await answer.write(data[: len(data) // 2])
            return self._abort(request)
        for piece in (
            [data[i * len(data) // 10 : (i + 1) * len(data) // 10] for i in range(10)]
            if kind == "slow"
            else [data]
        ):
            await answer.write(piece)
            await asyncio.sleep(0.1 if kind == "slow" else 0)
        return answer

    def _kind(self, call: str) -> str | None:
        if self._always and self._always.search(call):
            return "slow_down"
        return self._random.choice(self._kinds) if self._random.random() < self._rate else None

    def _set(self, rate: float, kinds: list[str], late: float) -> None:
        self._rate, self._kinds, self._late = rate, tuple(kinds), late

    def _as_listed(self, request: web.Request, status: int, data: bytes) -> bytes:
        """An answer, without what was created of late where it is a listing."""
        path, now = unquote(request.path), time.monotonic()
        if request.method == "DELETE":
            self._created.pop(path, None)
        elif status == 200 and (request.method == "PUT" or "uploadId" in request.query):
            self._created.setdefault(path, now)
        if request.method != "GET" or "list-type" not in request.query or not self._late:
            return data

        def listed(match: re.Match[bytes]) -> bytes:
            created = self._created.get(f"{path.rstrip('/')}/{unquote(match[1].decode())}", 0.0)
            is_late = now - created < self._late
            self.done["late"] += is_late
            return b"" if is_late else match[0]

        shown = LISTED.sub(listed, data)
        hidden = len(LISTED.findall(data)) - len(LISTED.findall(shown))
        return COUNTED.sub(lambda match: b"<KeyCount>%d<" % (int(match[1]) - hidden), shown)

    async def _made(self, request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in OWN
        }
        url = URL(self._upstream + request.raw_path, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, data=body, headers=headers) as answer,
        ):
            data = await answer.read()
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in OWN or request.method == "HEAD"
            }
            return answer.status, kept, data

    def _abort(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


async def serve(options: argparse.Namespace) -> None:
    app = web.Application(client_max_size=2**30)
    app.router.add_route(
        "*",
        "/{path:.*}",
        Faults(
            options.upstream, options.rate, options.always, options.seed, options.throttle
        ).handle,
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--always", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--throttle", type=int, default=503)
    asyncio.run(serve(parser.parse_args()))
