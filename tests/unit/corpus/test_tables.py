"""Delta and Iceberg tables as input: one snapshot's files, with the table's columns."""

from __future__ import annotations

import datetime as dt
import decimal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import LongType
from support.project import AS_ANYBODY
from support.tables import (
    add_delete_manifest,
    delta_table,
    iceberg_catalog,
    iceberg_table,
    rewrite_log,
    with_column_mapping,
    with_deletion_vector,
    with_path,
    with_protocol,
)

from moderay.config.job import Job
from moderay.config.paths import beside
from moderay.core.errors import ModerayError, TryAgainError, UserError
from moderay.corpus.formats import format_of
from moderay.corpus.formats.table_schema import fitted
from moderay.corpus.scan import Scan, scan
from moderay.corpus.shard import Shard
from moderay.corpus.tables.delta_store import storage_options
from moderay.corpus.tables.location import TableUrl, parse

POSTS = pa.table({"id": [1, 2, 3], "text": ["one", "two", "three"]})


def job(path: Any, version: Any = None, folder: Path | None = None, **sections: Any) -> Job:
    return Job.model_validate(
        {
            "name": "test",
            "input": {"path": path, "content": "text", "version": version},
            "output": {"path": "/nowhere/out"},
            "policies": ["p"],
            "model": {"source": "tiny"},
            **sections,
        },
        context=beside(folder) if folder else None,
    )


def scanned(*args: Any, **sections: Any) -> Scan:
    return scan(job(*args, **sections), [])


def rows_of(shard: Shard, names: list[str]) -> list[dict[str, Any]]:
    fs, path = shard.located({})
    tables = format_of(shard.url).tables(fs, path, names, shard.schema, listed=shard.state)
    return [row for table in tables for row in table.to_pylist()]


def all_rows(found: Scan) -> list[dict[str, Any]]:
    names = found.columns.names
    return [row for shard in found.shards for row in rows_of(shard, names)]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("delta:///data/posts/", TableUrl("delta", "/data/posts")),
        ("delta://posts", TableUrl("delta", "posts")),
        ("delta://s3://bucket/a b", TableUrl("delta", "s3://bucket/a b")),
        ("iceberg://lake/a/b/posts", TableUrl("iceberg", "", "lake", ("a", "b"), "posts")),
        ("s3://bucket/posts", None),
        ("posts", None),
    ],
)
def test_urls(url: str, expected: TableUrl | None) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *("delta://", "delta:///", "delta://file:///data", "delta://delta://data"),
        *("iceberg://lake/posts", "iceberg://lake//posts", "iceberg://lake"),
        "delta://s3://bucket/a/../../other/posts",
    ],
)
def test_url_of_no_table(url: str) -> None:
    with pytest.raises(UserError):
        parse(url)


def test_a_path_beside_the_job_file(tmp_path: Path) -> None:
    delta_table(tmp_path / "posts", POSTS)
    found = scanned("delta://posts", folder=tmp_path)
    assert found.rows == 3 and found.tables[0].url == f"delta://{tmp_path}/posts"


def test_storage_options_are_those_of_fsspec() -> None:
    storage = {
        "s3": {
            "key": "k",
            "secret": "s",
            "client_kwargs": {"endpoint_url": "http://127.0.0.1:1", "region_name": "r"},
        },
        "gs": {"token": "other"},
        "catalogs": {"lake": {"type": "sql"}},
    }
    assert storage_options("s3://bucket/posts", storage) == (
        "s3://bucket/posts",
        {
            "aws_access_key_id": "k",
            "aws_secret_access_key": "s",
            "aws_endpoint_url": "http://127.0.0.1:1",
            "aws_region": "r",
            "aws_allow_http": "true",
        },
    )
    with pytest.raises(UserError, match="requester_pays is not known for Delta tables"):
        storage_options("s3://bucket/posts", {"requester_pays": True})
    with pytest.raises(UserError, match="a Delta table lies in"):
        storage_options("ftp://host/posts", {})


def test_partition_values_are_columns_of_the_tables_types(tmp_path: Path) -> None:
    days = [dt.date(2026, 1, 1), None, dt.date(2026, 1, 1)]
    prices = pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")], pa.decimal128(9, 2))
    odd = ["a/b %41", "_x", "..\u00e9"]
    table = POSTS.append_column("day", pa.array(days, pa.date32()))
    table = table.append_column("price", prices).append_column("o d", pa.array(odd))
    found = scanned(delta_table(tmp_path, table, partition_by=["day", "price", "o d"]))
    assert sorted(all_rows(found), key=lambda row: row["id"]) == table.to_pylist()
    assert found.columns.field("day").type == pa.date32()
    assert found.columns.field("price").type == pa.decimal128(9, 2)
    assert not found.problems and all(not shard.partitions for shard in found.shards)
    # A part of the table's rows alone tells how many rows there are.
    assert {len(rows_of(shard, ["day"])) for shard in found.shards} == {1}


def test_columns_that_were_added_later_are_null_before(tmp_path: Path) -> None:
    url = delta_table(tmp_path, POSTS)
    more = pa.table({"id": [4], "text": ["four"], "lang": ["en"]})
    delta_table(tmp_path, more, schema_mode="merge")
    rows = sorted(all_rows(scanned(url)), key=lambda row: row["id"])
    assert [row["lang"] for row in rows] == [None, None, None, "en"]


def test_nested_columns(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}], None]
    kind = pa.large_list(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
    pairs = pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))
    table = pa.table({"text": pa.array(turns, kind), "pairs": pairs})
    found = scanned(delta_table(tmp_path / "posts", table))
    assert not found.problems and all(shard.conversation for shard in found.shards)
    assert [row["text"] for row in all_rows(found)] == turns
    properties = iceberg_catalog(tmp_path / "lake")
    iceberg_table(properties, table)
    found = scanned("iceberg://lake/db/posts", **lake(properties))
    # pyiceberg writes no list as an empty one.
    assert not found.problems and [row["text"] for row in all_rows(found)] == [turns[0], []]


def test_iceberg_partitions_and_wider_types(tmp_path: Path) -> None:
    properties = iceberg_catalog(tmp_path)
    days = pa.array([dt.date(2026, 1, 1), None], pa.date32())
    small = pa.table({"text": ["a", "b"], "day": days, "n": pa.array([1, 2], pa.int32())})
    table = iceberg_table(properties, small.slice(0, 0))
    with table.update_spec() as spec:
        spec.add_identity("day")
    table.append(small)
    with table.update_schema() as schema:
        schema.update_column("n", LongType())
    found = scanned("iceberg://lake/db/posts", **lake(properties))
    assert found.columns.field("n").type == pa.int64()
    assert sorted(all_rows(found), key=lambda row: row["n"]) == small.to_pylist()
    # As of files that another engine has added, which may lack the column.
    for shard in found.shards:
        assert shard.schema is not None
        empty = pa.table({"text": ["a"]})
        [row] = fitted(empty, shard.schema, ["day", "n"]).to_pylist()
        assert row == {"day": dt.date(2026, 1, 1) if "2026" in shard.name else None, "n": None}


def test_versions_of_a_delta_table(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    url = delta_table(tmp_path, POSTS, pa.table({"id": [4], "text": ["four"]}))
    DeltaTable(tmp_path).delete("id = 1")
    counts = {version: scanned(url, version).rows for version in (0, 1, 2, None)}
    assert counts == {0: 3, 1: 4, 2: 3, None: 3}
    found = scanned(url, 1)
    assert (found.tables[0].version, found.tables[0].url) == (1, url)
    written = dt.datetime.fromtimestamp(
        DeltaTable(tmp_path).history(3)[1]["timestamp"] / 1000, dt.UTC
    )
    assert found.tables[0].time == written.isoformat(timespec="seconds")
    assert scanned(url, written.isoformat()).tables[0].version == 1
    assert f"{url}: version 1 of {found.tables[0].time}" in found.notes


def test_label_files_have_the_paths_of_the_tables_files(tmp_path: Path) -> None:
    url = delta_table(
        tmp_path, POSTS.append_column("_k", pa.array(["a", "b", "a"])), partition_by=["_k"]
    )
    found = scanned(url)
    # What an output keeps for itself begins with _.
    assert {shard.name.split("/")[0] for shard in found.shards} == {"%5Fk=a", "%5Fk=b"}
    assert all(shard.name.endswith(Path(shard.url).name) for shard in found.shards)


def told(found: Callable[[], Any], kind: type[ModerayError] = UserError) -> str:
    with pytest.raises(kind) as error:
        found()
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        *((path, "outside the table's own folder") for path in (
            "/etc/hosts.parquet", "file:///etc/hosts.parquet", "../other/x.parquet",
            "a/%2e%2e/%2E%2E/x.parquet", "s3://other/x.parquet", "a//x.parquet", "",
        )),
        ("x.csv", "is no Parquet file"),
    ],
)  # fmt: skip
def test_a_log_that_names_what_is_not_the_tables(tmp_path: Path, path: str, says: str) -> None:
    url = delta_table(tmp_path / "posts", POSTS)
    rewrite_log(tmp_path / "posts", with_path(path))
    assert says in told(lambda: scanned(url))


def test_delta_tables_that_cannot_be_read(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    def posts(name: str) -> Path:
        delta_table(tmp_path / name, POSTS, pa.table({"id": [4], "text": ["four"]}))
        return tmp_path / name

    def says(folder: Path, version: Any = None) -> str:
        return told(lambda: scanned(f"delta://{folder}", version))

    vectors = posts("vectors")
    rewrite_log(vectors, with_deletion_vector)
    assert "deletion vectors" in (text := says(vectors)) and "REORG TABLE" in text
    unknown = posts("unknown")
    rewrite_log(unknown, with_protocol(3, ["fromTheFuture"]))
    assert "fromTheFuture" in says(unknown)
    widened = posts("widened")
    rewrite_log(widened, with_protocol(3, ["typeWidening"]))
    assert "typeWidening" in says(widened)
    mapped = posts("mapped")
    rewrite_log(mapped, with_column_mapping)
    assert "maps its columns" in says(mapped)
    torn = posts("torn")
    (torn / "_delta_log/00000000000000000001.json").write_text('{"add":{"pa')
    assert "log cannot be read" in says(torn)
    assert "no Delta table is there" in says(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    assert "no Delta table is there" in says(tmp_path / "folder")
    good = posts("good")
    assert "no Delta table is there" in says(good / "_delta_log/00000000000000000000.json")
    assert "has no version 9: input.version may be 0 to 1" in says(good, 9)
    assert "has no version" in says(good, 2**63)
    assert "has no version of 2001" in says(good, "2001-01-01T00:00:00Z")
    DeltaTable(good).create_checkpoint()
    for version in range(2):
        (good / f"_delta_log/{version:020}.json").unlink()
    assert scanned(f"delta://{good}").rows == 4
    assert "version 0 is not in its log any more" in says(good, 0)


def test_files_that_were_vacuumed(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    url = delta_table(tmp_path, POSTS)
    DeltaTable(tmp_path).update(updates={"text": "'new'"}, predicate="id = 1")
    DeltaTable(tmp_path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert scanned(url).rows == 3
    text = told(lambda: scanned(url, 0))
    assert "1 of its 1 files are gone" in text and "vacuumed" in text


def test_a_file_that_does_not_fit_its_table(tmp_path: Path) -> None:
    url = delta_table(tmp_path, POSTS)
    file = next(tmp_path.glob("*.parquet"))
    pq.write_table(pa.table({"id": ["1"], "text": ["one"]}), file)
    assert "its column 'id' is string, and int64 in the table" in told(lambda: scanned(url))
    # What is narrower holds nothing that the table's type does not.
    pq.write_table(
        pa.table({"id": pa.array([1], pa.int32()), "text": pa.array(["one"], pa.large_string())}),
        file,
    )
    assert all_rows(scanned(url)) == [{"id": 1, "text": "one"}]


def test_a_version_of_no_table(tmp_path: Path) -> None:
    pq.write_table(POSTS, tmp_path / "a.parquet")
    assert [problem.message for problem in scanned(str(tmp_path), 1).problems] == [
        "input.path names no table"
    ]
    urls = [delta_table(tmp_path / name, POSTS) for name in ("one", "two")]
    assert [problem.message for problem in scanned(urls, 0).problems] == [
        "one number cannot be the version of 2 tables"
    ]


def test_the_output_is_not_written_into_the_table(tmp_path: Path) -> None:
    url = delta_table(tmp_path, POSTS)
    problems = scanned(url, output={"path": f"{tmp_path}/labels"}).problems
    assert "lies inside the input" in problems[0].message


def test_packages_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = delta_table(tmp_path, POSTS)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    assert "pip install 'moderay[delta]'" in told(lambda: scanned(url))
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    assert "pip install 'moderay[iceberg]'" in told(lambda: scanned("iceberg://lake/db/posts"))


def test_a_store_that_does_not_answer() -> None:
    storage = {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:1"}
    told(lambda: scanned("delta://s3://bucket/posts", storage=storage), TryAgainError)


def lake(properties: dict[str, str]) -> dict[str, Any]:
    return {"storage": {"catalogs": {"lake": properties}}}


def test_snapshots_of_an_iceberg_table(tmp_path: Path) -> None:
    properties = iceberg_catalog(tmp_path)
    table = iceberg_table(properties, POSTS, pa.table({"id": [4], "text": ["four"]}))
    url = "iceberg://lake/db/posts"
    found = scanned(url, **lake(properties))
    assert sorted(row["text"] for row in all_rows(found)) == ["four", "one", "three", "two"]
    assert all(shard.name.startswith("data/") for shard in found.shards)
    first, last = table.snapshots()
    assert (found.tables[0].version, found.tables[0].url) == (last.snapshot_id, url)
    assert scanned(url, first.snapshot_id, **lake(properties)).rows == 3
    as_of = dt.datetime.fromtimestamp(first.timestamp_ms / 1000, dt.UTC).isoformat()
    assert scanned(url, as_of, **lake(properties)).tables[0].version == first.snapshot_id
    assert "has no snapshot 7: it has" in told(lambda: scanned(url, 7, **lake(properties)))
    with table.update_schema() as schema:
        schema.add_column("lang", table.schema().find_type("text"))
    table.append(pa.table({"id": [5], "text": ["five"], "lang": ["en"]}))
    rows = {row["id"]: row["lang"] for row in all_rows(scanned(url, **lake(properties)))}
    assert rows == {1: None, 2: None, 3: None, 4: None, 5: "en"}
    add_delete_manifest(table)
    assert "position or equality deletes" in told(lambda: scanned(url, **lake(properties)))


def test_an_iceberg_column_that_was_renamed_is_not_taken_for_another(tmp_path: Path) -> None:
    properties = iceberg_catalog(tmp_path)
    table = iceberg_table(properties, POSTS)
    with table.update_schema() as schema:
        schema.rename_column("text", "words")
    found = told(lambda: scanned("iceberg://lake/db/posts", **lake(properties)))
    assert "its column 'text' is 'words' in the table" in found
    with table.update_schema(allow_incompatible_changes=True) as schema:
        schema.add_column("text", table.schema().find_type("words"))
    found = told(lambda: scanned("iceberg://lake/db/posts", **lake(properties)))
    assert "its column 'text' is another one than the table's" in found or "'words'" in found


def test_an_iceberg_table_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    properties = iceberg_catalog(tmp_path)
    assert "is not there" in told(lambda: scanned("iceberg://lake/db/posts", **lake(properties)))
    assert not (tmp_path / "catalog.db").exists()
    table = iceberg_table(properties, POSTS)
    for url in ("iceberg://lake/db/others", "iceberg://lake/other/posts"):
        assert "no such table" in told(partial(scanned, url, **lake(properties)))
    assert "the catalog other stands in" in told(lambda: scanned("iceberg://other/db/posts"))
    rest = {"type": "rest", "uri": "http://127.0.0.1:1"}
    told(lambda: scanned("iceberg://lake/db/posts", **lake(rest)), TryAgainError)
    Path(table.metadata_location.removeprefix("file://")).unlink()
    assert "is gone" in told(lambda: scanned("iceberg://lake/db/posts", **lake(properties)))


def test_a_catalog_that_somebody_else_has_locked(tmp_path: Path) -> None:
    properties = iceberg_catalog(tmp_path)
    iceberg_table(properties, POSTS)
    impatient = {**properties, "uri": f"{properties['uri']}?timeout=0"}
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        found = told(lambda: scanned("iceberg://lake/db/posts", **lake(impatient)), TryAgainError)
    assert "the catalog or the store does not answer" in found and "locked" in found
    assert scanned("iceberg://lake/db/posts", **lake(impatient)).rows == 3


# Each job's input, looked at; what is said of those that are refused.
LOOK = """
import sys
from moderay.config.job import Job
from moderay.core.errors import UserError
from moderay.corpus.scan import scan
for text in sys.argv[1:]:
    try:
        scan(Job.model_validate_json(text), [])
    except UserError as error:
        print(error)
"""


def test_tables_that_this_user_may_not_read(tmp_path: Path) -> None:
    for name in ("closed", "log", "part"):
        delta_table(tmp_path / name, POSTS, partition_by=["id"])
    properties = iceberg_catalog(tmp_path)
    table = iceberg_table(properties, POSTS)
    for place in ("closed", "log/_delta_log", "part/id=2", "catalog.db"):
        (tmp_path / place).chmod(0)
    jobs = [job(f"delta://{tmp_path}/{name}") for name in ("closed", "log", "part")]
    jobs.append(job("iceberg://lake/db/posts", **lake(properties)))
    texts = [each.model_dump_json(exclude_unset=True) for each in jobs]
    said = look(texts)
    (tmp_path / "catalog.db").chmod(0o600)
    Path(table.metadata_location.removeprefix("file://")).chmod(0)
    said += look(texts[-1:])
    closed, log, part, catalog, metadata = said
    assert "closed: access denied (" in closed and "log: access denied (" in log
    assert "its folder id=2 cannot be looked into (permission denied)" in part
    assert "catalog.db: access denied; whoever runs this has to be let in" in catalog
    assert "iceberg://lake/db/posts: access denied (" in metadata


def look(jobs: list[str]) -> list[str]:
    """What somebody without root's rights is told of the input of jobs, a line each."""
    command = [*AS_ANYBODY, sys.executable, "-c", LOOK, *jobs]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_an_iceberg_table_whose_files_lie_elsewhere(tmp_path: Path) -> None:
    properties = iceberg_catalog(tmp_path)
    table = iceberg_table(properties, POSTS)
    pq.write_table(POSTS, tmp_path / "elsewhere.parquet")
    with table.transaction() as change:
        change.set_properties(
            {"schema.name-mapping.default": table.schema().name_mapping.model_dump_json()}
        )
    table.add_files([f"file://{tmp_path}/elsewhere.parquet"])
    found = told(lambda: scanned("iceberg://lake/db/posts", **lake(properties)))
    assert "elsewhere.parquet' lies outside the table's own folder" in found


def test_a_tables_own_properties_do_not_say_where_its_store_is(tmp_path: Path) -> None:
    from moderay.corpus.tables.iceberg import _own_io, open_catalog

    properties = iceberg_catalog(tmp_path)
    table = iceberg_table(properties, POSTS)
    with table.transaction() as change:
        change.set_properties({"s3.endpoint": "http://attacker", "warehouse": "s3://attacker"})
    catalog = open_catalog("lake", {"catalogs": {"lake": properties}})
    opened = catalog.load_table("db.posts")
    assert opened.io.properties["s3.endpoint"] == "http://attacker"
    io = _own_io(catalog, opened)
    assert (
        "s3.endpoint" not in io.properties and io.properties["warehouse"] == properties["warehouse"]
    )
