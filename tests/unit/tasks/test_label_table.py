"""Labels in a Delta or an Iceberg table, as other engines read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyiceberg.catalog import Catalog, load_catalog
from support.label_forms import as_before
from support.project import ROOT
from support.published import published_output

import moderay
from moderay.config.policy import load_policy
from moderay.core.errors import UserError
from moderay.core.verdicts import Status, Verdict, verdict_array
from moderay.labels.layout import Layout, list_state
from moderay.tasks.tables.label_table import registered, update_table

SPAM = load_policy(ROOT / "policies" / "spam")
ROWS = 20
SHARDS = [f"day={day}/part ä%20+{day}.parquet" for day in range(3)]


def of_shards(names: list[str]) -> Mapping[str, tuple[pa.Array, list[pa.StructArray]]]:
    rest = [0.0] * (len(SPAM.label_names) - 2)
    verdicts = [
        Verdict(
            Status.OK,
            [1 - row / ROWS, *rest, row / ROWS],
            answer="SP0",
            decided_by="reason",
            origin="judged",
        )
        for row in range(ROWS)
    ]
    return {
        name: (
            pa.array([f"{name} {row}" for row in range(ROWS)]),
            [verdict_array(verdicts, 0)],
        )
        for name in names
    }


@pytest.fixture
def output(tmp_path: Path) -> Layout:
    """Labels, of which the first shard's are of a form with a field less."""
    layout = published_output(tmp_path, [SPAM], of_shards(SHARDS))
    as_before(layout, SHARDS[0])
    return layout


@pytest.fixture
def in_iceberg(output: Layout, tmp_path: Path) -> tuple[Layout, Catalog]:
    """The labels with a catalog beside them, as the job's storage names it."""
    catalog = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"file://{tmp_path}/warehouse",
    }
    opened = load_catalog("local", **catalog)
    return replace(output, options={"catalogs": {"local": catalog}}), opened


def remove_shard(layout: Layout, shard: str) -> None:
    """As `run --prune` does."""
    os.remove(layout.label(shard))
    for name in list_state(layout).markers[shard]:
        os.remove(layout.marker(shard, name))


def test_a_delta_table_holds_what_is_published_and_joins_its_source(output: Layout) -> None:
    assert update_table(output, "delta") == f"delta://{output.url} version 0"
    expected = moderay.read_labels(output.url).collect().sort("text")
    read = pl.scan_delta(output.url).collect().sort("text")
    assert read.select(expected.columns).equals(expected)
    by_arrow = pl.from_arrow(DeltaTable(output.url).to_pyarrow_table())
    assert isinstance(by_arrow, pl.DataFrame)
    assert by_arrow.sort("text").select(expected.columns).equals(expected)
    source = pl.scan_parquet(Path(output.url).parent / "in/**/*.parquet", hive_partitioning=False)
    joined = source.join(pl.scan_delta(output.url), on="text").collect()
    assert len(joined) == len(SHARDS) * ROWS
    query = "SELECT count(*) FILTER (WHERE spam.violates), count(DISTINCT day) FROM labels"
    with duckdb.connect() as engine:
        engine.register("labels", DeltaTable(output.url).to_pyarrow_dataset())
        [(flagged, days)] = engine.sql(query).fetchall()
    assert (flagged, days) == (expected["spam"].struct["violates"].sum(), 3)
    # Nothing has changed, and nothing is committed.
    assert update_table(output) == f"delta://{output.url} version 0"


def test_labels_that_are_written_again_take_the_place_of_those_before(output: Layout) -> None:
    update_table(output, "delta")
    moderay.decide(output.url, {"spam": 0.9})
    table = DeltaTable(output.url)
    assert table.version() > 0
    flagged = pl.scan_delta(output.url).filter(pl.col("spam").struct["violates"]).collect()
    assert len(flagged) == len(SHARDS) * 2
    # Of the version before, whose files are gone, nothing wrong can be read.
    with pytest.raises((pa.ArrowInvalid, OSError)):
        DeltaTable(output.url, version=0).to_pyarrow_table()
    # Who reads every Parquet file of the folder finds label files alone.
    there = [path for path in Path(output.url).rglob("*.parquet") if path.is_file()]
    assert len(there) == len(SHARDS)
    assert len(table.file_uris()) == len(SHARDS)


def test_a_table_that_fell_behind_is_brought_up_to_the_labels(output: Layout) -> None:
    update_table(output, "delta")
    remove_shard(output, SHARDS[1])
    (Path(output.url) / "_moderay/table.json").unlink()
    assert update_table(output) is None
    update_table(output, "delta")
    assert pl.scan_delta(output.url).collect()["day"].unique().sort().to_list() == ["0", "2"]
    # What somebody else put there is no label file.
    DeltaTable(output.url).delete("day = '2'")
    update_table(output)
    assert len(pl.scan_delta(output.url).collect()) == 2 * ROWS


def test_drivers_that_register_at_once_leave_one_table(output: Layout) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: update_table(output, "delta"), range(4)))
    assert all(done)
    files = DeltaTable(output.url).file_uris()
    assert len(files) == len(set(files)) == len(SHARDS)


def test_an_iceberg_table_holds_what_is_published(in_iceberg: tuple[Layout, Catalog]) -> None:
    output, catalog = in_iceberg
    url = "iceberg://local/mod/labels"
    first = update_table(output, url)
    assert first is not None and first.startswith(f"{url} version ")
    expected = moderay.read_labels(output.url).drop("day").collect().sort("text")
    read = pl.from_arrow(catalog.load_table("mod.labels").scan().to_arrow())
    assert isinstance(read, pl.DataFrame)
    assert read.sort("text").select(expected.columns).equals(expected)
    assert update_table(output) == first
    remove_shard(output, SHARDS[1])
    moderay.decide(output.url, {"spam": 0.9}, output.options)
    table = catalog.load_table("mod.labels")
    assert table.scan(row_filter="spam.violates == true").to_arrow().num_rows == 2 * 2
    paths = [task.file.file_path for task in table.scan().plan_files()]
    assert len(paths) == len(set(paths)) == 2
    # As of a Delta table: no earlier snapshot would read what it held.
    assert len(table.snapshots()) == 1


def test_tables_that_cannot_be_are_refused_in_a_sentence(output: Layout) -> None:
    with pytest.raises(UserError, match=r"iceberg://nowhere/a/b: pyiceberg cannot read it"):
        update_table(output, "iceberg://nowhere/a/b")
    update_table(output, "delta")
    log = Path(output.url) / "_delta_log"
    newer = '{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, '
    newer += '"readerFeatures": ["wild"], "writerFeatures": ["wild"]}}'
    (log / "00000000000000000001.json").write_text(newer)
    with pytest.raises(UserError, match=r"protocol that is not known here.*wild"):
        update_table(output)
    assert registered(output) is not None
    assert pq.read_table(output.label(SHARDS[1])).num_rows == ROWS
