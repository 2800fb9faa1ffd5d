"""What notices that something was asked for: an HTTP server, and a file that nobody may open."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Listener:
    """An HTTP server on loopback.

    Attributes:
        url: Where it listens.
        requests: The paths it was asked for.
    """

    url: str
    requests: list[str]


@contextmanager
def listening() -> Iterator[Listener]:
    """A `Listener`, which answers everything with 404."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield Listener(f"http://127.0.0.1:{server.server_address[1]}", requests)
        server.shutdown()
        thread.join()


@dataclass
class Pipe:
    """A named pipe.

    Attributes:
        path: Where it lies.
        opened: Whether anybody opened it to read.
    """

    path: Path
    opened: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Until somebody does; then give a table of one row."""
        with suppress(BrokenPipeError), self.path.open("w") as file:
            self.opened.set()
            file.write("a\n1\n")


@contextmanager
def waiting_pipe(path: Path) -> Iterator[Pipe]:
    """A `Pipe` at a path where nothing is yet."""
    os.mkfifo(path)
    made = Pipe(path)
    thread = threading.Thread(target=made.wait, daemon=True)
    thread.start()
    yield made
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # lets the thread go
    thread.join(10)
    os.close(reader)
