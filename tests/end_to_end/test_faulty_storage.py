"""A store that fails now and then loses nothing and pays for nothing twice; one that fails for good
ends a shard, not the run.
"""

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import compared, labels
from support.s3_running import faulty_proxy

from moderay.core.storage import RemoteFile, files_below, filesystem, get
from moderay.labels.layout import Layout
from moderay.labels.lease import Lease, is_held

pytestmark = pytest.mark.long

ROWS, SHARDS = 120, 4


@pytest.fixture
def proxy(s3: dict[str, str]) -> Iterator[Callable[..., dict[str, str]]]:
    """Start a proxy before the S3 server; the environment that leads through it."""
    with ExitStack() as stack:

        def start(**options: object) -> dict[str, str]:
            proxy = stack.enter_context(faulty_proxy(s3["AWS_ENDPOINT_URL"], **options))
            return {**s3, "AWS_ENDPOINT_URL": proxy.url}

        yield start


@pytest.fixture
def bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A folder of the S3 server with a corpus in it, the same as on disk; one shard is so large
    that it is put in parts.
    """
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "in").mkdir()
    for shard in range(SHARDS):
        rows: dict[str, Any] = {
            "text": [f"{'prize' if i % 3 else 'day'} {shard} {i}" for i in range(ROWS)]
        }
        rows["blob"] = [os.urandom(340_000 if shard == 2 else 10) for _ in range(ROWS)]
        pq.write_table(pa.table(rows), tmp_path / f"in/{shard}.parquet")
    fs, path = filesystem(f"s3://data/{tmp_path.name}")
    fs.put(str(tmp_path / "in"), f"{path}/in", recursive=True)
    return f"s3://data/{tmp_path.name}"


def script(tmp_path: Path, log: str) -> dict[str, Any]:
    prize = {
        "content": "prize",
        "answer": '{"label": "SP4", "rationale": "A prize."}',
        "reasoning": "A prize.",
        "p": 0.8,
    }
    return {
        "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}'},
        "rules": [prize],
        "log": str(tmp_path / log),
    }


def parquet_below(url: str) -> dict[str, pa.Table]:
    fs, path = filesystem(url)
    return {
        file.name: pq.read_table(RemoteFile(fs, f"{path}/{file.name}"))
        for file in files_below(fs, path)
        if file.name.endswith(".parquet")
    }


def test_five_percent_of_calls_failing_in_six_ways_cost_time_and_nothing_else(
    job, bucket: str, tmp_path: Path, proxy, cli
) -> None:  # type: ignore[no-untyped-def]
    env = proxy(rate=0.05, seed=1)
    result = cli("run", job(script(tmp_path, "disk")))
    assert result.returncode == 0, result.stderr
    result = cli(
        "run",
        job(
            script(tmp_path, "s3"),
            input={"path": f"{bucket}/in", "content": "text"},
            output={"path": f"{bucket}/out", "reasoning": "all"},
        ),
        **env,
    )
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    disk, actual = labels(tmp_path / "out"), parquet_below(f"{bucket}/out")
    assert list(actual) == list(disk)
    for name, table in disk.items():
        assert (
            actual[name]
            .select(["text", "blob", "row"])
            .equals(table.select(["text", "blob", "row"]))
        )
        assert compared(actual[name], "spam") == compared(table, "spam")
    assert (
        (tmp_path / "s3").stat().st_size == (tmp_path / "disk").stat().st_size == 2 * ROWS * SHARDS
    )
    fs, path = filesystem(bucket)
    left = [
        file.name
        for file in files_below(fs, f"{path}/out/_moderay")
        if file.name.startswith(("units/", "tmp/"))
    ]
    assert left == []
    with urllib.request.urlopen(env["AWS_ENDPOINT_URL"] + "/-/faults") as answer:
        faults = json.loads(answer.read())
    assert sum(count for kind, count in faults.items() if kind != "calls") >= 5, faults


def test_label_files_are_written_again_and_filtered_through_a_store_that_fails(
    job, bucket: str, tmp_path: Path, proxy, cli
) -> None:  # type: ignore[no-untyped-def]
    written: list[dict[str, pa.Table]] = []
    for at, env in ((str(tmp_path), {}), (bucket, proxy(rate=0.05, seed=2))):
        made = job(
            script(tmp_path, "asked"),
            input={"path": f"{at}/in", "content": "text"},
            output={"path": f"{at}/out", "reasoning": "all"},
        )
        for command in (
            ("run", made),
            ("run", made, "--set=output.columns=[text]"),
            ("filter", made, "--keep=NOT flagged", f"--out={at}/filtered"),
        ):
            result = cli(*command, **env)
            assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
        written.append(parquet_below(f"{at}/filtered") | parquet_below(f"{at}/out"))
        assert (tmp_path / "asked").stat().st_size == 2 * ROWS * SHARDS * len(written)
    disk, store = written
    assert disk.keys() == store.keys() and len(disk) == 3 * SHARDS, disk.keys()
    for name, table in disk.items():
        assert store[name].select(["text"]).equals(table.select(["text"])), name


def test_failures_that_last_end_their_shards_and_the_next_run_goes_on(
    job, bucket: str, tmp_path: Path, proxy, cli, s3
) -> None:  # type: ignore[no-untyped-def]
    # Shard 0 cannot be read, but for its end; of shard 1 no unit can be saved; shard 3 cannot be
    # put.
    always = (
        "GET .*/in/0.parquet bytes=[1-9]|PUT .*/out/_moderay/units/1.parquet|(PUT|POST) "
        ".*/out/3.parquet"
    )
    file = job(
        script(tmp_path, "log"),
        input={"path": f"{bucket}/in", "content": "text"},
        output={"path": f"{bucket}/out"},
        unit={"rows": 60},
    )
    result = cli("run", file, **proxy(rate=0, always=always))
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert all(f"failed: {shard}.parquet: " in result.stderr for shard in (0, 1, 3)), result.stderr
    assert list(parquet_below(f"{bucket}/out")) == ["2.parquet"]
    fs, path = filesystem(f"{bucket}/out")
    manifest = json.loads(get(fs, f"{path}/_moderay/manifest-2.json"))
    assert (
        sorted(manifest["failed"]) == ["0.parquet", "1.parquet", "3.parquet"]
        and not manifest["complete"]
        and manifest["rows"] == ROWS
    )
    before = (tmp_path / "log").stat().st_size
    result = cli("run", file, **s3)
    assert result.returncode == 0 and len(parquet_below(f"{bucket}/out")) == SHARDS, result.stderr
    assert (
        tmp_path / "log"
    ).stat().st_size - before == 2 * 2 * ROWS  # shard 3 was judged and saved already


def test_shard_whose_end_cannot_be_read_is_left_out_and_named(job, bucket: str, proxy, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli(
        "check",
        job(input={"path": f"{bucket}/in", "content": "text"}),
        **proxy(rate=0, always="GET .*/in/1.parquet"),
    )
    assert (
        result.returncode == 0
        and "warning: 1.parquet will be left out: " in result.stderr
        and "3 shards" in result.stdout
    ), result.stderr


def test_lease_is_taken_over_what_comes_back_of_it(
    s3: dict[str, str], proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    for name, value in proxy(rate=0.4, seed=3).items():
        monkeypatch.setenv(name, value)
    layout = Layout(f"s3://data/{tmp_path.name}-lease")
    for run in range(4):
        with Lease(layout, least=run) as lease:
            assert lease.run == run and is_held(layout, run)
        assert not is_held(layout, run)
