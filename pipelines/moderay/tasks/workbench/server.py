"""A workbench for other programs of this machine: label and render over HTTP, on loopback alone.

Who may ask is told by a token in a file that its owner alone can read. A page in a browser knows
none, and is refused for its Origin or for the Host that it asked for besides.
"""

from __future__ import annotations

import asyncio
import hmac
import importlib.metadata
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

from aiohttp import web

from moderay.config.job import Effort
from moderay.config.policy import Policy, load_policy, parse_policy
from moderay.core.errors import ModerayError, UserError, first_line
from moderay.engines.checkpoint import CACHE
from moderay.engines.harmony.prompt import prompt
from moderay.tasks.workbench.labels import label_texts
from moderay.tasks.workbench.port import HOST, token_file
from moderay.tasks.workbench.workbench import Workbench

# Bytes of a request.
LONGEST_REQUEST = 64 * 2**20
# What messages call a policy that came as a text.
SENT = "policy"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(bench: Workbench, port: int) -> AsyncIterator[Path]:
    """Serve a workbench meanwhile.

    Args:
        bench: What judges.
        port: Of loopback.

    Yields:
        The file with the token.

    Raises:
        UserError: The port is taken, or the token cannot be written.
    """
    token = secrets.token_urlsafe(32)
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    app = web.Application(
        client_max_size=LONGEST_REQUEST, middlewares=[_errors, _only(token, hosts)]
    )
    api = _Api(bench)
    app.add_routes(
        [
            web.get("/health", api.health),
            web.post("/label", api.label),
            web.post("/render", api.render),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            raise UserError(
                f"port {port} cannot be listened on: {first_line(error)}; name another"
            ) from None
        file = _written(token, port)
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)
    finally:
        await runner.cleanup()


def _written(token: str, port: int) -> Path:
    file = token_file(port)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A new file, so that nobody holds an old one open, or has it as a link.
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(token)
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {first_line(error)}; name another folder in {CACHE}"
        ) from None
    return file


def _only(token: str, hosts: set[str]) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        written = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        is_known = hmac.compare_digest(written, f"Bearer {token}".encode())
        if not is_known or request.host not in hosts or "Origin" in request.headers:
            return web.json_response({"error": "not allowed"}, status=403)
        return await handler(request)

    return check


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What a person must mend, in words."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.reason}, status=error.status)
    except ModerayError as error:
        status = 400 if isinstance(error, UserError) else 503
        return web.json_response({"error": str(error)}, status=status)


class _Api:
    """The requests. A body is JSON; `policy` is a folder or the text of a policy.md."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    async def health(self, _: web.Request) -> web.Response:
        model = self._bench.job.model
        return web.json_response(
            {
                "version": importlib.metadata.version("moderay"),
                "model": model.source if model.endpoint is None else model.name,
                "effort": model.effort,
                "warm": self._bench.is_warm,
            }
        )

    def _effort(self, body: Mapping[str, Any]) -> Effort:
        """`effort`; by default the workbench's own."""
        effort: Effort = body.get("effort", self._bench.job.model.effort)
        if effort not in get_args(Effort):
            raise UserError(f"effort: one of {', '.join(get_args(Effort))} is wanted")
        return effort

    async def label(self, request: web.Request) -> web.Response:
        """`policy` and `content` are texts or lists of them."""
        body = await _body(request)
        policies = [await _policy(item) for item in _texts(body, "policy")]
        contents = [item.encode("utf-8", "surrogatepass") for item in _texts(body, "content")]
        labels = await label_texts(self._bench, policies, contents, self._effort(body))
        return web.json_response({"labels": labels})

    async def render(self, request: web.Request) -> web.Response:
        body = await _body(request)
        [folder], [content] = _texts(body, "policy", 1), _texts(body, "content", 1)
        vocab = self._bench.vocab
        made = prompt(await _policy(folder), self._effort(body), vocab)
        ids = made.render(vocab.encode(content))
        return web.json_response({"ids": ids, "text": vocab.decode(ids)})


async def _body(request: web.Request) -> Mapping[str, Any]:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body is no JSON: {first_line(error)}") from None
    if not isinstance(body, dict):
        raise UserError("the body is no JSON object")
    return body


def _texts(body: Mapping[str, Any], key: str, count: int | None = None) -> Sequence[str]:
    value = body.get(key)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"{key}: a text or a list of texts is wanted")
    if count is not None and len(texts) != count:
        raise UserError(f"{key}: one text is wanted, not {len(texts)}")
    return texts


async def _policy(item: str) -> Policy:
    """The policy in a folder, or in the text of a policy.md."""
    if item.startswith("---"):
        return parse_policy(item, SENT)
    if not Path(item).is_absolute():
        raise UserError(f"policy: {item!r} is neither an absolute path nor the text of a policy.md")
    return await asyncio.to_thread(load_policy, item)
