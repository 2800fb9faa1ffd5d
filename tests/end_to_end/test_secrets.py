"""Secrets are planted wherever a run may be told one, and searched for in all that it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.endpoint import NAME, Endpoint, served_beside
from support.webserver import Web, serving

pytestmark = pytest.mark.long

PLANTED = {
    "AWS_SESSION_TOKEN": "planted-session-token",
    "OPENAI_API_KEY": "planted-endpoint-key",
    "HF_TOKEN": "planted-hub-token",
    "PLANTED_STORE_SECRET": "planted-store-secret",
    "USERINFO": "planted-user:planted-password",
    "SIGNATURE": "planted-signature",
}


@pytest.fixture
def paths(corpus: Path) -> Iterator[dict[str, str]]:
    """Inputs as a job names them: on this machine, and over the web for those who may see it."""
    with (
        serving(Web(corpus, user=PLANTED["USERINFO"])) as known,
        serving(Web(corpus, signature=PLANTED["SIGNATURE"])) as signed,
    ):
        yield {
            "store": str(corpus),
            "userinfo": "http://${USERINFO}@" + known.host + "/a.parquet",
            "signature": f"http://{signed.host}/a.parquet?X-Amz-Signature=" + "${SIGNATURE}",
        }


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's own, with its logs; short, since sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="mr-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def arguments_while(run: subprocess.Popen[str]) -> str:
    """The arguments of a run's processes, of each that was seen until it ended."""
    seen: dict[int, str] = {}
    driver = psutil.Process(run.pid)
    while run.poll() is None:
        try:
            for process in [driver, *driver.children(recursive=True)]:
                seen[process.pid] = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.2)
    assert len(seen) > 5
    return "\n".join(seen.values())


def files_with(folder: Path, text: str) -> list[str]:
    return [
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink() and text.encode() in file.read_bytes()
    ]


@pytest.mark.parametrize("place", ["store", "userinfo", "signature"])
def test_secrets_are_in_nothing_that_a_run_leaves(
    place: str,
    job: Callable[..., Path],
    paths: dict[str, str],
    s3: dict[str, str],
    ray_folder: Path,
    tmp_path: Path,
) -> None:
    endpoint = Endpoint(key=PLANTED["OPENAI_API_KEY"])
    out = f"s3://data/{tmp_path.name}" if place == "store" else str(tmp_path / "out")
    (tmp_path / "logs").mkdir()
    with served_beside(endpoint.handle) as url, (tmp_path / "logs/shown").open("w") as shown:
        file = job(
            input={"path": paths[place], "content": "text"},
            output={"path": out, "reasoning": "all"},
            model={"endpoint": f"{url}/v1", "name": NAME},
            storage={"s3": {"secret": "${PLANTED_STORE_SECRET}", "key": "test"}},
        )
        run = subprocess.Popen(
            [sys.executable, "-m", "moderay", "run", "--progress", "logs/events", str(file)],
            stdout=shown,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            text=True,
            env=os.environ | s3 | PLANTED | {"RAY_ADDRESS": "local", "RAY_TMPDIR": str(ray_folder)},
        )
        arguments = arguments_while(run)
    assert run.returncode == 0, (tmp_path / "logs/shown").read_text()
    if place == "store":
        import s3fs

        store = s3fs.S3FileSystem(key="test", secret="x", endpoint_url=s3["AWS_ENDPOINT_URL"])
        store.get(f"data/{tmp_path.name}", str(tmp_path / "out"), recursive=True)
    assert len(list((tmp_path / "out/_moderay").rglob("*"))) > 2
    assert len(list(ray_folder.rglob("*.log"))) > 2
    for secret in (text for value in PLANTED.values() for text in value.split(":")):
        assert secret not in arguments
        assert files_with(tmp_path / "out", secret) == [], secret
        assert files_with(tmp_path / "logs", secret) == [], secret
        assert files_with(ray_folder, secret) == [], secret
