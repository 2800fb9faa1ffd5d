"""A web server on loopback for the tests: files by ranges, a page of links for a folder."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Web:
    """A folder as a server shows it.

    Attributes:
        folder: What is served.
        says: What it says of a file beside its size: `etag`, `time`, both or neither.
        user: `name:password` that it asks for, or nothing.
        signature: That it asks for in the query, or nothing.
        port: Where it listens.
        failing: How many of the next calls get an answer of this status.
    """

    folder: Path
    says: tuple[str, ...] = ("etag", "time")
    user: str = ""
    signature: str = ""
    port: int = 0
    failing: dict[int, int] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    """Serve a folder, on a port that is free."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, web, body=True)

        def do_HEAD(self) -> None:
            _answer(self, web, body=False)

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is their own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


def _answer(call: BaseHTTPRequestHandler, web: Web, body: bool) -> None:
    url = urllib.parse.urlsplit(call.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    status = next((status for status, left in web.failing.items() if left), 0)
    headers: dict[str, str] = {}
    data = b""
    asked = call.headers.get("Authorization", "")
    if status:
        web.failing[status] -= 1
    elif web.user and asked != "Basic " + base64.b64encode(web.user.encode()).decode():
        status = 401
    elif web.signature and query.get("X-Amz-Signature") != web.signature:
        status = 403
    else:
        status, headers, data = _found(call, web, urllib.parse.unquote(url.path))
    call.send_response(status)
    for name, value in headers.items():
        call.send_header(name, value)
    call.send_header("Content-Length", str(len(data)))
    call.end_headers()
    if body:
        call.wfile.write(data)


def _found(call: BaseHTTPRequestHandler, web: Web, path: str) -> tuple[int, dict[str, str], bytes]:
    file = web.folder / path.lstrip("/")
    if file.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in file.iterdir())
        links = [f'<a href="{urllib.parse.quote(name)}">{html.escape(name)}</a>' for name in names]
        return 200, {"Content-Type": "text/html"}, "\n".join(links).encode()
    if not file.is_file():
        return 404, {}, b""
    data = file.read_bytes()
    headers = {"Accept-Ranges": "bytes"}
    if "etag" in web.says:
        headers["ETag"] = f'"{hashlib.md5(data).hexdigest()}"'
    if "time" in web.says:
        headers["Last-Modified"] = formatdate(file.stat().st_mtime, usegmt=True)
    if match := re.fullmatch(r"bytes=(\d+)-(\d+)", call.headers.get("Range", "")):
        start, end = int(match[1]), int(match[2]) + 1
        return (
            206,
            headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"},
            data[start:end],
        )
    return 200, headers, data
