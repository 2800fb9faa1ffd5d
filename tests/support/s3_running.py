"""An S3 server on this machine while a test or a benchmark needs it, and a proxy before it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.project import ROOT
from support.ray_cluster import free_port


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server with a bucket `data`; the environment variables that lead there."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/support/s3server.py"), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for whoever uses it
    )
    url = f"http://127.0.0.1:{port}"
    # Workers take credentials from their own environment, so runs on this store start a Ray of
    # their own.
    env = {
        "RAY_ADDRESS": "local",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
    }
    try:
        for _ in range(150):
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        import s3fs

        s3fs.S3FileSystem(key="test", secret="test-secret", endpoint_url=url).mkdir("data")
        yield env
    finally:
        server.terminate()
        server.wait()


class Proxy:
    """Before an S3 server; fails what it is told to."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def set(self, rate: float = 0.0, kinds: tuple[str, ...] = (), late: float = 0.0) -> None:
        """What fails from now on; by default nothing."""
        self._call(json.dumps({"rate": rate, "kinds": kinds, "late": late}).encode())

    def done(self) -> dict[str, int]:
        """How often each was done so far."""
        return self._call(None)

    def _call(self, data: bytes | None) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/-/faults", data, timeout=60) as answer:
            counts: dict[str, Any] = json.loads(answer.read())
        return counts


@contextmanager
def faulty_proxy(upstream: str, **options: object) -> Iterator[Proxy]:
    """A proxy with these options of faulty.py; by default it fails nothing until it is told to."""
    arguments = {"upstream": upstream, "rate": 0, **options}
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "tests/support/faulty.py")),
            *(f"--{name}={value}" for name, value in arguments.items()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # of callers that were killed
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield Proxy(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()
