"""What notices that something was asked for: an HTTP server, and a file that nobody may open.

Both are processes of their own, which answer even a library that holds Python's lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Listener:
    """An HTTP server on loopback.

    Attributes:
        url: Where it listens.
        log: A line for each request.
    """

    url: str
    log: Path

    @property
    def requests(self) -> list[str]:
        """What it was asked for."""
        return [line for line in self.log.read_text().splitlines() if "HTTP/" in line]


@contextmanager
def listening(folder: Path) -> Iterator[Listener]:
    """A `Listener` with nothing to give, whose log lies in an empty folder."""
    log = folder / "log"
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors) as server,
    ):
        assert server.stdout is not None
        port = server.stdout.readline().split(b"port ")[1].split()[0].decode()
        yield Listener(f"http://127.0.0.1:{port}", log)
        server.terminate()


@dataclass(frozen=True)
class Pipe:
    """A named pipe.

    Attributes:
        path: Where it lies.
        writer: Ends when somebody has opened it to read.
    """

    path: Path
    writer: subprocess.Popen[bytes]

    @property
    def opened(self) -> bool:
        """Whether anybody opened it to read, half a second ago at the latest."""
        with suppress(subprocess.TimeoutExpired):
            self.writer.wait(0.5)
        return self.writer.returncode is not None


@contextmanager
def waiting_pipe(path: Path) -> Iterator[Pipe]:
    """A `Pipe` at a path where nothing is yet."""
    os.mkfifo(path)
    with subprocess.Popen(["sh", "-c", 'printf "a\\n1\\n" > "$0"', str(path)]) as writer:
        yield Pipe(path, writer)
        writer.terminate()
