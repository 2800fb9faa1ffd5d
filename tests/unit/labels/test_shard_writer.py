"""Publishing a shard is all or nothing, and of those who hold the lease."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import put
from support.outputs import labels, verdicts_of

from moderay.core.verdicts import Status, Verdict, unit_schema, verdict_array
from moderay.corpus.columns import read_columns
from moderay.corpus.content import contents
from moderay.labels import shard_writer
from moderay.labels.layout import list_state, read_markers
from moderay.labels.lease import Lease, LeaseLostError, claim_path
from moderay.labels.records import LeaseRecord
from moderay.labels.shard_writer import Publication, ShardFailedError
from moderay.labels.unit_file import unit_bytes
from moderay.pipeline import check
from moderay.pipeline.plan import make_plan
from moderay.pipeline.stages.spans import RowStream, spans

EMPTY = [Verdict(Status.EMPTY)] * 35
HASHES = [f"{34 - row:032x}" for row in range(35)]


def judged_shard(
    job_file: Path, verdicts: Sequence[Verdict] = EMPTY, hashes: Sequence[str | None] = HASHES
) -> Publication:
    """The first shard of a job, its rows saved as one unit; by default the 35 of `corpus`."""
    checked = check.check(job_file)
    plan = make_plan(checked)
    work = plan.todo[0]
    unit = pa.Table.from_arrays(
        [
            pa.array(range(len(hashes))),
            pa.array(hashes, pa.string()),
            verdict_array(verdicts, 0),
        ],
        schema=unit_schema(["spam"]),
    )
    whole = (0, len(hashes))
    path = plan.layout.unit(work.shard.name, whole, work.units)
    plan.layout.write(path, unit_bytes(unit, whole))
    keys = {cascade.policy.id: cascade.keys for cascade in checked.cascades}
    return Publication(
        plan.layout,
        work.shard,
        work.key,
        work.units,
        plan.decision,
        keys,
        tuple(policy.rule for policy in checked.policies),
        checked.scan.columns,
        "all",
        0,
        {},
    )


def test_exception_in_the_middle_of_publishing_leaves_no_object(
    job, corpus: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    publication = judged_shard(job(output={"path": f"{bucket}/planted"}))
    layout = publication.layout
    claim = LeaseRecord(id="a", run=0, host="h", machine="m", pid=1)
    layout.write(claim_path(layout, 0), claim.to_json())
    before = set(layout.fs.find(layout.root))
    write_table = pq.ParquetWriter.write_table

    def then_fail(writer: pq.ParquetWriter, table: pa.Table) -> None:
        write_table(writer, table)
        raise RuntimeError("planted")

    with monkeypatch.context() as planted:
        planted.setattr(pq.ParquetWriter, "write_table", then_fail)
        with pytest.raises(RuntimeError, match="planted"):
            shard_writer.publish(publication, [(0, 35)], [])
    assert set(layout.fs.find(layout.root)) == before
    assert shard_writer.publish(publication, [(0, 35)], []).policies["spam"].empty == 35
    assert layout.label("a.parquet").removeprefix("s3://") in layout.fs.find(layout.root)


def test_writer_whose_epoch_is_over_publishes_nothing(job, corpus: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    publication = judged_shard(job())
    with Lease(publication.layout) as first:
        assert first.run == publication.run
    with (
        Lease(publication.layout, least=1) as second,
        pytest.raises(LeaseLostError, match="taken over by another driver"),
    ):
        assert second.run == 1
        shard_writer.publish(publication, [(0, 35)], [])
    assert labels(tmp_path / "out") == {}


def test_marker_shows_what_its_label_file_holds_also_under_another_threshold(
    job, corpus: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    verdicts = [
        Verdict(Status.OK, scores=[1 - row / 40, row / 40, 0.0], answer="SP0") for row in range(30)
    ]
    publication = judged_shard(job(), [*verdicts, *[Verdict(Status.TIMEOUT)] * 5])
    layout, name = publication.layout, publication.shard.name
    with Lease(layout):
        marker = shard_writer.publish(publication, [(0, 35)], [])
        state = list_state(layout)
        (published,) = state.markers[name]
        path = layout.marker(name, published)
        assert state.published(name) == published
        assert list(read_markers(layout, [path])) == [marker]
        (rule,) = publication.rules
        again = shard_writer.republish(
            replace(publication, rules=(rule.under(0.7),), decision="f" * 16),
            [published],
        )
    rows = verdicts_of(labels(tmp_path / "out")[name], "spam")
    assert sum(marker.histograms["spam"].values()) == marker.policies["spam"].ok == 30
    assert again.histograms == marker.histograms
    assert marker.flagged == 10 and again.flagged == sum(bool(row["violates"]) for row in rows) == 2
    assert marker.new is None and again.new is not None and again.new.rows == 35
    assert [row.row for row in again.chosen["spam"].flagged] == [29, 28]
    assert {row.row for row in marker.chosen["spam"].failed} <= set(range(30, 35))
    assert again.chosen["spam"].borderline and not layout.fs.exists(path)


def test_content_that_is_not_what_was_judged_is_not_published_and_is_judged_again(
    job, corpus: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    publication = replace(judged_shard(job()), content="text")
    layout, unit = (
        publication.layout,
        publication.layout.unit("a.parquet", (0, 35), publication.units),
    )
    with Lease(layout), pytest.raises(ShardFailedError, match="holds other contents than were"):
        assert layout.fs.exists(unit)
        shard_writer.publish(publication, [(0, 35)], [])
    assert labels(tmp_path / "out") == {} and not layout.fs.exists(unit)


LINES = [
    b'{"text": "a quiet day"}',
    b'{"text": "a", "text": "b"}',
    b'{"text": 7}',
    b'{"text": [{"role": "user", "content": "hi"}]}',
    b'{"text": null}',
]
# As the names of columns that say how a row was read.
ODD_KEYS = b'{"text": "odd", "\\u0001unreadable": "x", "\\u0001kind text": "y"}'


@pytest.mark.parametrize("more", [[], [ODD_KEYS]], ids=["lines", "odd keys"])
def test_lines_that_are_invalid_or_no_text_are_published_as_they_were_judged(
    job, tmp_path: Path, more: list[bytes]
) -> None:  # type: ignore[no-untyped-def]
    text = [*LINES, *more]
    put(tmp_path, "a.jsonl", b"\n".join(text))
    checked = check.check(job())
    [span] = spans(checked.scan.shards[0], [(0, len(text))], checked.job.unit)
    read = RowStream(span, checked.job, read_columns(checked.job)).upto(0, len(text))
    hashes = [content.hash for content in contents(read, "text")]
    assert [row for row, hash_ in enumerate(hashes) if hash_ is None] == [1, 2, 4]
    rows = (0, len(text))
    verdicts = [Verdict(Status.EMPTY)] * len(text)
    if not more:
        other = ["0" * 32, *hashes[1:]]
        publication = replace(judged_shard(job(), verdicts, other), content="text")
        with Lease(publication.layout), pytest.raises(ShardFailedError, match="other contents"):
            shard_writer.publish(publication, [rows], [])
    publication = judged_shard(job(), verdicts, hashes)
    with Lease(publication.layout) as lease:
        work = replace(publication, content="text", run=lease.run)
        assert shard_writer.publish(work, [rows], []).rows == len(text)


def test_input_that_changes_while_it_is_published_is_named(
    job, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    publication = judged_shard(job())
    file = corpus / "a.parquet"
    now = file.stat()
    other = file.read_bytes()
    file.unlink()
    file.write_bytes(other)
    os.utime(file, ns=(now.st_atime_ns, now.st_mtime_ns))  # of the same size and time
    with Lease(publication.layout), pytest.raises(ShardFailedError) as raised:
        shard_writer.publish(publication, [(0, 35)], [])
    assert str(raised.value) == "a.parquet changed while it was read: run the same command again"


@pytest.mark.parametrize("rows", [34, 36])
def test_input_with_other_rows_than_were_counted_is_not_published(
    job, corpus: Path, tmp_path: Path, rows: int
) -> None:  # type: ignore[no-untyped-def]
    publication = judged_shard(job())
    shard = replace(publication.shard, row_groups=(rows,))
    with Lease(publication.layout), pytest.raises(ShardFailedError):
        shard_writer.publish(replace(publication, shard=shard), [(0, 35)], [])
    assert labels(tmp_path / "out") == {}
