"""Night after night from S3 to S3: what is asked for, what rings, and the trend."""

import json
import re
from pathlib import Path

import pytest
from benchmarks.nights import ANSWERS, CHANGED, DATES, KILLED, MORE, SEQS, TOUCHED, UNIT, Nights
from support.project import ROOT


@pytest.mark.long
def test_seven_nights_from_s3_to_s3(
    tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, cli, golden
) -> None:  # type: ignore[no-untyped-def]
    """Requests equal what is new, every night; the alarm rings on the fifth night and says so; the
    trend is drawn.
    """
    from moderay.labels.analysis.summary import brief, lines
    from moderay.pipeline.check import check
    from moderay.pipeline.run import run as run_checked

    for name in s3.keys() - {"RAY_ADDRESS"}:
        monkeypatch.setenv(name, s3[name])
    # The workers of a Ray that runs already have no credentials but the job's.
    options = {
        "key": s3["AWS_ACCESS_KEY_ID"],
        "secret": s3["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": s3["AWS_ENDPOINT_URL"],
    }
    url = f"s3://data/{tmp_path.name}"
    nights = Nights(tmp_path, 2_000, (0.02, 0.08), url, {"s3": options})
    texts = []

    def run(date: str) -> dict:
        for name, value in nights.env(date).items():
            monkeypatch.setenv(name, value)
        checked = check(ROOT / "jobs/nightly.yaml", nights.sets())
        outcome = run_checked(checked)
        result = brief(checked.job, outcome.manifest, outcome.worked)
        texts.append("\n".join(lines(result)))
        return result

    for date in DATES:
        night = nights.night(date, run)
        assert (
            night.summary["complete"]
            and night.summary["new"]["rows"] == nights.rows
            and night.summary["date"] == date
        )
        if date == KILLED:
            assert night.new <= night.requested <= night.new + ANSWERS * SEQS + UNIT
        else:
            assert night.requested == night.new
        assert [("since " + MORE in alarm) for alarm in night.summary["alarms"]] == [True] * len(
            night.summary["alarms"]
        )
        assert bool(night.summary["alarms"]) == (date >= MORE)
        if date == TOUCHED:
            again = nights.touched(run)
            assert again.requested == again.new == CHANGED and list(again.summary["gone"]) == [
                "1.parquet"
            ]
            assert again.summary["new"] == night.summary["new"] | {
                "changed": 1,
                "rows": nights.rows + CHANGED,
            }
    golden("nights", "\n\n".join(texts).replace(url, "<tmp>") + "\n")

    result = cli("trend", f"{url}/labels", "--chart", tmp_path / "trend.png", "--strict")
    assert result.returncode == 1 and f"since {MORE}" in result.stderr, result.stderr
    # What the killed night had asked for is told by nobody.
    golden(
        "trend",
        re.sub(r"(?<=2026-11-03)(.*?)[\d,]+ +[\d,.]+ *$", r"\1...", result.stdout, flags=re.M),
    )
    assert (tmp_path / "trend.png").read_bytes().startswith(b"\x89PNG")
    actual = json.loads(cli("trend", f"{url}/labels/date=*", "--json").stdout)
    assert [night["date"] for night in actual["nights"]] == DATES and actual["policies"]["spam"][
        "change"
    ]["since"] == MORE
