"""Debian's Prometheus, which scrapes one port of loopback every two seconds."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from support.ray_cluster import free_port


class Prometheus:
    """A server that was asked for its address."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def series(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        """What a query gives between two times, in steps of a second: labels and values.

        Raises:
            urllib.error.HTTPError: It is no query.
        """
        more = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": 1})
        result: list[dict[str, Any]] = self.get(f"query_range?{more}")["result"]
        return result

    def get(self, path: str) -> Any:
        """The data of an answer."""
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def is_up(self) -> bool:
        try:
            self.get("status/buildinfo")
        except OSError:
            return False
        return True


@contextmanager
def prometheus(folder: Path, target: int, rules: Path) -> Iterator[Prometheus]:
    """A server with its data in a folder, while it is needed.

    Args:
        folder: Its own.
        target: The port that it scrapes.
        rules: A file of rules.
    """
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Prometheus(port)
        until = time.monotonic() + 60
        while not server.is_up():
            assert process.poll() is None and time.monotonic() < until, "Prometheus does not start"
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait()
