"""How much of a file is read for the rows that are wanted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderay.core.storage import RemoteFile
from moderay.pipeline import check
from moderay.pipeline.stages import spans


@pytest.mark.slow
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
    total = 0
    read_file = RemoteFile.read

    def counting(file: RemoteFile, size: int = -1) -> bytes:
        nonlocal total
        data = read_file(file, size)
        total += len(data)
        return data

    monkeypatch.setattr(RemoteFile, "read", counting)
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
    assert 0 < total <= 1.2 * group.column(0).total_compressed_size
