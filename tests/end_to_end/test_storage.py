"""The same job from and to an S3 server."""

import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.corpora import as_lines
from support.outputs import compared, labels

from moderay.core.storage import filesystem
from moderay.labels.analysis.trend import read_nights
from moderay.labels.manifest_store import outputs
from moderay.tasks.filter.records import FATES


@pytest.mark.slow
def test_job_on_s3_equals_the_job_on_disk(
    job, corpus: Path, bucket: str, tmp_path: Path, cli, s3
) -> None:  # type: ignore[no-untyped-def]
    as_lines(corpus / "b.parquet")
    fs, path = filesystem(bucket)
    fs.put(str(corpus), f"{path}/in", recursive=True)
    assert cli("run", job(output={"path": "out"})).returncode == 0
    result = cli(
        "run",
        job(input={"path": f"{bucket}/in", "content": "text"}, output={"path": f"{bucket}/out"}),
        **s3,
    )
    assert result.returncode == 0, result.stderr
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
    for folder, env in ((str(tmp_path), {}), (bucket, s3)):
        result = cli(
            "filter",
            "--labels",
            f"{folder}/out",
            "--keep",
            "NOT spam.violates",
            "--out",
            f"{folder}/clean",
            **env,
        )
        assert result.returncode == 0, result.stderr
    fs.invalidate_cache()
    fs.get(f"{path}/clean", str(tmp_path / "copy"), recursive=True)
    for fate in FATES:
        assert len(labels(tmp_path / "clean" / fate)) == 2 and labels(
            tmp_path / "copy" / fate
        ) == labels(tmp_path / "clean" / fate)
        lines = [
            gzip.decompress((tmp_path / folder / fate / "b.jsonl.gz").read_bytes())
            for folder in ("clean", "copy")
        ]
        assert lines[0] == lines[1] != b""
    assert not (tmp_path / "copy/_moderay/tmp").exists()
    assert outputs(f"{bucket}/o*", {}) == [f"{bucket}/out"]
    on_s3, on_disk = (read_nights([folder], {})[0][0] for folder in (bucket, f"{tmp_path}/out"))
    assert (on_s3.rows, on_s3.shards, on_s3.flagged) == (
        on_disk.rows,
        on_disk.shards,
        on_disk.flagged,
    ) and on_s3.rows == 105


@pytest.mark.slow
def test_storage_errors_are_one_sentence(job, corpus: Path, cli, s3) -> None:  # type: ignore[no-untyped-def]
    for path, env, status in (
        ("s3://no-such-bucket/x", s3, 2),
        ("s3://data/x", {**s3, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 3),
        ("nothing://x", {}, 2),
    ):
        result = cli("run", job(input={"path": path, "content": "text"}), **env)
        assert (
            result.returncode == status
            and "Traceback" not in result.stderr
            and len(result.stderr.strip().splitlines()) <= 4
        ), result.stderr
