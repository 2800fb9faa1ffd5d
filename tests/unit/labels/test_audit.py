"""What the audit says of a judge that settles."""

import pytest

from moderay.labels.analysis.audit import alarms, report


def test_a_miss_that_was_not_promised_raises_an_alarm() -> None:
    counts = {
        "ok": 10_000,
        "flagged": 500,
        "settled.screen": 8_000,
        "settled.reason": 2_000,
        "audited.screen": 400,
        "overruled.screen": 20,
        "missed.screen": 20,
    }
    found = report(counts, ["screen", "reason"], {"screen": 0.05})
    assert (
        found["screen"]["alarm"]
        and found["screen"]["missed_violations"][1] == pytest.approx(400)
        and "audited" not in found["reason"]
    )
    assert [line.split(":")[0] for line in alarms({"spam": found})] == ["spam"]
    kept = report(counts | {"missed.screen": 1}, ["screen", "reason"], {"screen": 0.05})
    assert not kept["screen"]["alarm"] and alarms({"spam": kept}) == []
