"""Who may ask the review server: whoever has a link with its token, and no page of another site.

The token comes in the link once, and then in a cookie that no script reads. A request must name
this server as its host, so that no foreign name that was bound to this address gets an answer, and
what changes something must come from this server's own page.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Bytes of a request: an answer with a note.
LONGEST_REQUEST = 64 * 2**10
# Of every answer. Nothing is loaded from elsewhere, nothing runs that does not lie in a file of
# this server, and no page may hold this one in a frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REVIEWER = "reviewer"

_SAFE = ("GET", "HEAD")
_STALE = (
    "This page needs the link that moderay review printed: open that one. Where the server was "
    "started again, it may have printed another."
)


class Guard:
    """Lets through what reviewers ask, with who asks in the scope's state."""

    def __init__(self, app: ASGIApp, tokens: Mapping[str, str], hosts: set[str], name: str) -> None:
        """Before an app.

        Args:
            app: Which is asked then.
            tokens: By reviewer.
            hosts: As which this server may be asked: name and port.
            name: Of the cookie: the ports of a machine share theirs.
        """
        self._app = app
        self._tokens = tokens
        self._hosts = hosts
        self._cookie = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it be answered."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        response = self._refusal(scope, headers) or self._entered(scope)
        if response is None and (reviewer := self._reviewer(headers)) is None:
            response = PlainTextResponse(_STALE, 403)
        if response is not None:
            await response(scope, receive, secured)
            return
        scope.setdefault("state", {})[REVIEWER] = reviewer
        await self._app(scope, receive, secured)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        """What is refused whoever asks."""
        if headers.get("host", "").lower() not in self._hosts:
            return PlainTextResponse("This server has another name.", 403)
        if scope["method"] in _SAFE:
            return None
        if headers.get("origin", "").lower() not in {f"http://{host}" for host in self._hosts}:
            return PlainTextResponse("Answers are taken from this server's own page alone.", 403)
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > LONGEST_REQUEST:
            return PlainTextResponse("The request is too long.", 413)
        return None

    def _entered(self, scope: Scope) -> RedirectResponse | None:
        """The way from the link to the page, whose address holds no token."""
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        if scope["path"] != "/" or "token" not in query:
            return None
        token = query["token"][0]
        if self._owner(token) is None:
            return None
        response = RedirectResponse("/", 303)
        response.set_cookie(self._cookie, token, httponly=True, samesite="strict", path="/")
        return response

    def _reviewer(self, headers: Headers) -> str | None:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return None
        sent = cookies.get(self._cookie)
        return None if sent is None else self._owner(sent.value)

    def _owner(self, token: str) -> str | None:
        """Whose token it is."""
        owner = None
        for reviewer, known in self._tokens.items():
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "surrogateescape")):
                owner = reviewer
        return owner
