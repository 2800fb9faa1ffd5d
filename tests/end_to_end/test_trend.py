"""Two nights, their summaries, and the trend of both; many nights: test_nights.py."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# Of 200 rows each, those that fail.
FAILING = {"2026-11-01": 0, "2026-11-02": 10}


@pytest.mark.slow
def test_night_with_many_failures_is_summed_up_rings_and_is_drawn(job, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    summaries = []
    for date, failing in FAILING.items():
        kinds = ["failing"] * failing + ["prize"] * 4 + ["quiet"] * (196 - failing)
        texts = [f"{kind} {date} {number}" for number, kind in enumerate(kinds)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "in/a.parquet")
        night = cli("run", job(date=date, output={"path": f"out/date={date}"}), "--json")
        assert night.returncode == 0, night.stderr
        summaries.append(json.loads(night.stdout))
    labels = {"SP4": {"title": "Deceptive or malicious", "rows": 4}}
    for night, (date, failing) in zip(summaries, FAILING.items(), strict=True):
        labels["SP0"] = {"title": "Not spam", "rows": 196 - failing}
        counts = {"judged": 200 - failing, "flagged": 4, "failed": failing, "forced": 0}
        assert (night["date"], night["policies"]["spam"]) == (date, counts | {"labels": labels})

    again = cli("run", tmp_path / "job.yaml", "--brief").stdout.splitlines()
    assert again[-2:] == [
        "test 2026-11-02: 200 new rows; shards: 1 new, 0 changed; nothing to do now",
        "spam: 4 flagged of 190 (2.11%), 10 failed, 0 forced; SP0 Not spam 186, "
        "SP4 Deceptive or malicious 4",
    ]
    trend = cli("trend", tmp_path / "out", "--chart", tmp_path / "trend.png", "--strict")
    alarm = "ALARM spam: 5.00% of 200 rows of 2026-11-02 failed; limit 1.00%"
    assert trend.returncode == 1 and alarm in trend.stderr, trend.stderr
    assert ["2026-11-01", "200", "1", "0", "4"] in [
        line.split()[:5] for line in trend.stdout.splitlines()
    ]
    assert (tmp_path / "trend.png").read_bytes().startswith(b"\x89PNG")
