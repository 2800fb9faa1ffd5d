"""Delta and Iceberg tables as input: each version is labelled the night after it was written, and
only what is new in it is paid for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from benchmarks.tables import (
    ANSWERS,
    Changing,
    DeltaTables,
    IcebergTables,
    job_of,
    nights,
    rows_of,
)
from support.outputs import labels, manifest_of
from support.project import kill_all

from moderay import run
from moderay.labels.layout import Layout
from moderay.labels.manifest_store import read_manifest

# Requests that an engine has in flight, and rows of a unit, of a run that is killed.
SEQS, UNIT = 16, 50


def made(kind: str, folder: Path) -> Changing:
    if kind == "delta":
        return DeltaTables(f"{folder}/posts")
    return IcebergTables(folder / "catalog", f"file://{folder}/warehouse", {})


@pytest.mark.slow
def test_nights_of_a_delta_table(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    """After appending, and after compaction with an update and a delete; filtered and explained."""
    folder, table = tmp_path / "job", DeltaTables(f"{tmp_path}/posts")
    file = job_of(folder, table, filter={"keep": "NOT flagged", "out": str(tmp_path / "sifted")})
    log, out = folder / "log", folder / "out"

    def asked(**options: Any) -> int:
        before = log.stat().st_size
        outcome = run(file, **options)
        assert outcome.exit_status == 0 and outcome.manifest.complete
        return (log.stat().st_size - before) // ANSWERS

    table.append(rows_of(0, 120))
    assert asked() == 120
    [first] = manifest_of(out)["runs"][-1]["tables"]
    assert (first["path"], first["version"]) == (table.url, 0) and first["time"]
    table.append(rows_of(100, 40))
    assert asked() == 20  # twenty of them were there
    table.compact()
    assert asked(prune=True) == 0
    manifest = manifest_of(out)
    assert manifest["gone"] == [] and manifest["rows"] == 160
    assert manifest["runs"][-1]["tables"][0]["version"] == 2
    table.update(17)
    table.delete(13)
    assert asked() == len([text for text in table.texts() if text.startswith("changed")]) > 0
    # Old files lie there still, and so do their labels: the table has neither.
    assert manifest_of(out)["gone"]
    kept = cli("filter", file)
    assert kept.returncode == 0, kept.stderr
    sifted = [pq.read_table(part) for part in (tmp_path / "sifted/kept").rglob("*.parquet")]
    texts = [text for part in sifted for text in part.column("text").to_pylist()]
    assert set(texts) == {text for text in table.texts() if "prize" not in text}
    assert all(part.schema.names == ["id", "text", "lang"] for part in sifted)
    refused = cli("filter", "--labels", out, "--keep", "NOT flagged", "--out", tmp_path / "other")
    assert refused.returncode == 2 and "no longer has: filter by the job file" in refused.stderr
    for name, rows in labels(out).items():
        languages = set(rows.column("lang").to_pylist())
        assert languages == {"en" if "lang=en" in name else "de"}
    told = cli("explain", out, "--shard", next(iter(labels(out))), "--row", 0, "--job", file)
    assert told.returncode == 0, told.stderr
    planned = cli("plan", file)  # of which nothing is left
    assert planned.returncode == 0 and f"{table.url}: version 4 of" in planned.stdout
    page = tmp_path / "report.html"
    assert cli("report", out, "--out", page).returncode == 0
    assert f"{table.url}: version 4" in page.read_text()
    wrong = cli("check", file, "--set", "input.version=9")
    assert wrong.returncode == 2 and "has no version 9" in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_ten_versions(kind: str, tmp_path: Path) -> None:
    table = made(kind, tmp_path)
    file = job_of(tmp_path / "job", table)

    def night(_: int) -> None:
        outcome = run(file, prune=True)
        assert outcome.exit_status == 0 and outcome.manifest.complete

    for done in nights(tmp_path / "job", table, 400, night):
        assert done.requested == done.new, done
    found = labels(tmp_path / "job/out").values()
    assert {text for rows in found for text in rows.column("text").to_pylist()} == table.texts()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_a_table_from_s3_to_s3_killed_and_resumed(
    kind: str, tmp_path: Path, s3: dict[str, str]
) -> None:
    place = f"s3://data/{tmp_path.name}"
    options = {"key": s3["AWS_ACCESS_KEY_ID"], "secret": s3["AWS_SECRET_ACCESS_KEY"]}
    storage: dict[str, Any] = {"s3": options | {"endpoint_url": s3["AWS_ENDPOINT_URL"]}}
    table: Changing
    if kind == "delta":
        table = DeltaTables(
            f"{place}/posts",
            {
                "aws_access_key_id": options["key"],
                "aws_secret_access_key": options["secret"],
                "aws_endpoint_url": s3["AWS_ENDPOINT_URL"],
                "aws_region": "us-east-1",
                "aws_allow_http": "true",
            },
        )
    else:
        properties = {
            "s3.endpoint": s3["AWS_ENDPOINT_URL"],
            "s3.access-key-id": options["key"],
            "s3.secret-access-key": options["secret"],
            "s3.region": "us-east-1",
        }
        table = IcebergTables(tmp_path / "catalog", f"{place}/warehouse", properties)
        storage["catalogs"] = {"lake": table.catalog}
    folder = tmp_path / "job"
    table.append(rows_of(0, 1200))
    file = job_of(
        folder,
        table,
        delay_s=0.2,
        output={"path": f"{place}/labels"},
        storage=storage,
        unit={"rows": UNIT},
        model={"source": "scripted:script.yaml", "engine": {"max_num_seqs": SEQS}},
    )
    command = [sys.executable, "-m", "moderay", "run", str(file), "--json"]

    def rows() -> int:
        manifest = read_manifest(Layout(f"{place}/labels", storage))
        assert manifest is not None
        return manifest.rows

    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = folder / "log"
    _wait(lambda: log.stat().st_size > 400 * ANSWERS, driver)
    kill_all(driver)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] and rows() == 1200
    asked = log.stat().st_size / ANSWERS
    assert 1200 <= asked <= 1200 + 4 * (SEQS + UNIT), asked
    table.compact()
    again = subprocess.run([*command, "--prune"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and rows() == 1200, again.stderr
    assert log.stat().st_size / ANSWERS == asked


def _wait(until: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    while not until():
        time.sleep(0.1)
        assert driver.poll() is None, "the run ended before it was killed"
