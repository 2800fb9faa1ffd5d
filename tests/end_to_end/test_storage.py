"""The same job from and to an S3 server; publishing is all or nothing; bytes read."""

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from support.project import as_lines, compared, labels

from moderay.core.storage import create, filesystem
from moderay.core.verdicts import Status, Verdict, unit_schema, verdict_array
from moderay.labels import shard_writer
from moderay.labels.analysis.trend import found_nights
from moderay.labels.layout import outputs
from moderay.labels.lease import Lease, LeaseLostError
from moderay.labels.shard_writer import Publication
from moderay.pipeline import check
from moderay.pipeline.plan import make_plan
from moderay.pipeline.stages import spans
from moderay.tasks.filter.rule import FATES


@pytest.fixture
def bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    yield f"s3://data/{tmp_path.name}"


def test_job_on_s3_equals_the_job_on_disk(
    job, corpus: Path, bucket: str, tmp_path: Path, cli, s3
) -> None:  # type: ignore[no-untyped-def]
    as_lines(corpus / "b.parquet")
    fs, path = filesystem(bucket)
    fs.put(str(corpus), f"{path}/in", recursive=True)
    assert cli("run", job(output={"path": "out"})).returncode == 0
    said = cli(
        "run",
        job(input={"path": f"{bucket}/in", "content": "text"}, output={"path": f"{bucket}/out"}),
        **s3,
    )
    assert said.returncode == 0, said.stderr
    for name, table in labels(tmp_path / "out").items():
        on_s3 = pq.read_table(fs.open(f"{path}/out/{name}", "rb"))
        assert compared(on_s3, "spam") == compared(table, "spam") and on_s3.column("id").equals(
            table.column("id")
        )
    assert (
        "nothing to do"
        in cli(
            "run",
            job(
                input={"path": f"{bucket}/in", "content": "text"}, output={"path": f"{bucket}/out"}
            ),
            **s3,
        ).stdout
    )
    for place, env in ((str(tmp_path), {}), (bucket, s3)):
        said = cli(
            "filter",
            "--labels",
            f"{place}/out",
            "--keep",
            "NOT spam.violates",
            "--out",
            f"{place}/clean",
            **env,
        )
        assert said.returncode == 0, said.stderr
    fs.invalidate_cache()
    fs.get(f"{path}/clean", str(tmp_path / "copy"), recursive=True)
    for fate in FATES:
        assert len(labels(tmp_path / "clean" / fate)) == 2 and labels(
            tmp_path / "copy" / fate
        ) == labels(tmp_path / "clean" / fate)
        lines = [
            gzip.decompress((tmp_path / place / fate / "b.jsonl.gz").read_bytes())
            for place in ("clean", "copy")
        ]
        assert lines[0] == lines[1] != b""
    assert not (tmp_path / "copy/_moderay/tmp").exists()
    assert outputs(f"{bucket}/o*", {}) == [f"{bucket}/out"]
    on_s3, on_disk = (found_nights([place], {})[0] for place in (bucket, f"{tmp_path}/out"))
    assert (on_s3.rows, on_s3.shards, on_s3.flagged) == (
        on_disk.rows,
        on_disk.shards,
        on_disk.flagged,
    ) and on_s3.rows == 105


def test_storage_errors_are_one_sentence(job, corpus: Path, cli, s3) -> None:  # type: ignore[no-untyped-def]
    for path, env, status in (
        ("s3://no-such-bucket/x", s3, 2),
        ("s3://data/x", {**s3, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 3),
        ("nothing://x", {}, 2),
    ):
        said = cli("run", job(input={"path": path, "content": "text"}), **env)
        assert (
            said.returncode == status
            and "Traceback" not in said.stderr
            and len(said.stderr.strip().splitlines()) <= 4
        ), said.stderr


def test_of_several_writers_one_creates(bucket: str, tmp_path: Path) -> None:
    for url in (bucket, str(tmp_path)):
        fs, path = filesystem(url)
        for number in range(20):
            ready = threading.Barrier(4)

            def claim(
                i: int,
                path: str = f"{path}/epoch-{number}",
                fs: Any = fs,
                ready: threading.Barrier = ready,
            ) -> bool:
                ready.wait()
                return create(fs, path, b"%d" % i)

            with ThreadPoolExecutor(4) as pool:
                created = list(pool.map(claim, range(4)))
            assert sorted(created) == [False, False, False, True]
            assert fs.cat_file(f"{path}/epoch-{number}") == b"%d" % created.index(True)


def judged_shard(job_file: Path) -> Publication:
    """The first shard of a job over `corpus`, its 35 rows saved as one unit."""
    checked = check.check(job_file)
    plan = make_plan(checked)
    work = plan.todo[0]
    unit = pa.Table.from_arrays(
        [pa.array(range(35)), pa.array([""] * 35), verdict_array([Verdict(Status.EMPTY)] * 35, 0)],
        schema=unit_schema(["spam"]),
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, unit.schema) as writer:
        writer.write_table(unit)
    plan.layout.write(
        plan.layout.unit(work.shard.name, (0, 35), work.units), sink.getvalue().to_pybytes()
    )
    keys = {cascade.policy.id: cascade.keys for cascade in checked.cascades}
    return Publication(
        plan.layout,
        work.shard,
        work.key,
        work.units,
        plan.decision,
        keys,
        checked.policies,
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
    layout.write(
        layout.private("lease.json"),
        b'{"epoch": 0, "host": "h", "pid": 1, "renewed": 0, "released": false}',
    )
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
    assert shard_writer.publish(publication, [(0, 35)], [])["policies"]["spam"]["empty"] == 35
    assert layout.label("a.parquet").removeprefix("s3://") in layout.fs.find(layout.root)


def test_writer_whose_epoch_is_over_publishes_nothing(job, corpus: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    publication = judged_shard(job())
    with Lease(publication.layout) as first:
        assert first.epoch == publication.epoch
    with (
        Lease(publication.layout) as second,
        pytest.raises(LeaseLostError, match="taken over by another driver"),
    ):
        assert second.epoch == 1
        shard_writer.publish(publication, [(0, 35)], [])
    assert labels(tmp_path / "out") == {}


class _Counting(LocalFileSystem):  # type: ignore[misc]
    """Counts the bytes read by ranges."""

    total = 0

    def cat_file(self, path, start=None, end=None, **kwargs):  # type: ignore[no-untyped-def]
        data = super().cat_file(path, start, end, **kwargs)
        self.total += len(data)
        return data


def test_a_million_rows_in_one_row_group_are_read_once(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    numbers = np.random.default_rng(0).integers(0, 10**12, 1_000_000)
    table = pa.table(
        {"text": pa.array(numbers.astype(str)), "other": numbers, "more": numbers[::-1]}
    )
    pq.write_table(table, tmp_path / "in/a.parquet", row_group_size=1_000_000)
    checked = check.check(
        job(input={"path": "in", "content": "text", "sample": 0.001}, unit={"rows": 1000})
    )
    shard = checked.scan.shards[0]
    group = pq.read_metadata(tmp_path / "in/a.parquet").row_group(0)
    counting = _Counting()
    monkeypatch.setattr(spans, "filesystem", lambda *_: (counting, str(tmp_path / "in/a.parquet")))
    from moderay.engines import checkpoint
    from moderay.engines.harmony.vocabulary import vocabulary

    read = [
        rows
        for span in spans.spans(shard, [(0, shard.rows)], checked.job.unit)
        for rows, _ in spans.read_span(
            span, checked.job, checked.cascades, vocabulary(str(checkpoint.TINY_FOLDER))
        )
    ]
    assert len(read) == 1000 and read[-1] == (999_000, 1_000_000)
    assert counting.total <= 1.2 * group.column(0).total_compressed_size
