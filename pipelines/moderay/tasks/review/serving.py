"""A review server: its address, the links of its reviewers, and its end."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderay.core.errors import UserError, first_line
from moderay.core.hashing import digest
from moderay.core.storage import shown
from moderay.engines.checkpoint import CACHE
from moderay.labels.reviews import ReviewStore
from moderay.tasks.review.desk import Desk
from moderay.tasks.review.guard import Guard
from moderay.tasks.review.items import Item
from moderay.tasks.review.output import ReviewedOutput
from moderay.tasks.workbench.port import HOST

# Where the page is by default: the same after a kill, so that an open page goes on.
PORT = 8770
# Seconds for which a token that a killed server left is taken up by the next one.
TOKEN_S = 24 * 3600


@dataclass(frozen=True)
class ReviewRequest:
    """Who reviews what, and where.

    Attributes:
        output: That is reviewed.
        items: That are asked about, in their order.
        reviewers: Names.
        assisted: Whether the model's verdict is shown beforehand.
        host: Address that is listened on.
        port: Of the server; 0: any free one.
    """

    output: ReviewedOutput
    items: Sequence[Item]
    reviewers: Sequence[str]
    assisted: bool = False
    host: str = HOST
    port: int = PORT


class ReviewServer:
    """A server that is bound to its port and knows its links.

    Attributes:
        links: By reviewer: what to open.
        desk: Where reviewers answer.
    """

    def __init__(self, request: ReviewRequest) -> None:
        """Bind the port.

        Raises:
            UserError: The port is taken, or FastAPI and uvicorn are not installed.
        """
        _check_installed()
        self._request = request
        self._socket = _bound(request.host, request.port)
        self._port = self._socket.getsockname()[1]
        self._tokens = {name: _token(request.output.layout.url, name) for name in request.reviewers}
        host = _link_host(request.host)
        self.links = {
            name: f"http://{host}:{self._port}/?token={token}"
            for name, token in self._tokens.items()
        }
        self.desk = Desk(
            ReviewStore(request.output.layout),
            request.items,
            request.output.policies,
            request.reviewers,
            request.assisted,
        )

    def app(self) -> Any:
        """The ASGI application, guarded."""
        from moderay.tasks.review.app import review_app  # noqa: PLC0415  FastAPI is an extra

        name = shown(self._request.output.layout.url).rstrip("/").rpartition("/")[2]
        app = review_app(self.desk, self._request.output, name)
        hosts = _hosts(self._request.host, self._port)
        return Guard(app, self._tokens, hosts, f"moderay_review_{self._port}")

    def serve(self) -> None:
        """Answer until somebody presses Ctrl-C, or the process is asked to end."""
        import uvicorn  # noqa: PLC0415  an extra

        config = uvicorn.Config(
            self.app(),
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        server = uvicorn.Server(config)
        # The server sends a signal that ended it to this process again, for which there is still
        # something to do.
        with contextlib.suppress(KeyboardInterrupt), _ended_by_signals():
            server.run(sockets=[self._socket])

    def close(self) -> None:
        """End: put the answers together, and void the links."""
        self._socket.close()
        for name in self._tokens:
            _token_file(self._request.output.layout.url, name).unlink(missing_ok=True)
        self.desk.close()


@contextmanager
def review_server(request: ReviewRequest) -> Iterator[ReviewServer]:
    """A server that is closed afterwards, whatever ended it."""
    server = ReviewServer(request)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM in here ends what is done in good order, as Ctrl-C does."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_loopback(host: str) -> bool:
    """Whether nobody from another machine comes to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"review needs {error.name}: pip install 'moderay[review]'") from None


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        raise UserError(
            f"{host} port {port} cannot be listened on: {first_line(error)}; name another with "
            "--port, or --port 0 for any"
        ) from None
    return made


def _link_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _hosts(host: str, port: int) -> set[str]:
    """The names by which this server may be asked: none that a foreign zone could point here."""
    names = {HOST, "localhost", "[::1]", _link_host(host).lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower(), *_addresses()}
    return {f"{name}:{port}" for name in names}


def _addresses() -> set[str]:
    """Numbers of this machine."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return set()
    return {_link_host(str(address[4][0])) for address in found}


def _token(output: str, reviewer: str) -> str:
    """A new token; or that of a server that was killed, so that its open pages go on.

    It lies where its owner alone can read it.
    """
    file = _token_file(output, reviewer)
    try:
        if time.time() - file.stat().st_mtime < TOKEN_S and (kept := file.read_text()):
            return kept
        file.unlink()
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(token)
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {first_line(error)}; name another folder in {CACHE}"
        ) from None
    return token


def _token_file(output: str, reviewer: str) -> Path:
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache/moderay")
    return cache / "review" / digest([output, reviewer])


def checked_reviewers(names: Sequence[str]) -> tuple[str, ...]:
    """Names of people, each once.

    Raises:
        UserError: One is empty or unprintable, or none is given.
    """
    made = tuple(dict.fromkeys(name.strip() for name in names))
    if not made or any(not name or not name.isprintable() for name in made):
        raise UserError("--as: say who reviews, such as --as anna")
    return made


def default_reviewer(environment: Mapping[str, str]) -> str:
    """Who is signed in on this machine; nothing where it is not said."""
    return environment.get("USER") or environment.get("LOGNAME") or ""
