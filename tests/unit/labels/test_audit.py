"""What the audit says of a judge that settles."""

import pytest

from moderay.labels.analysis.audit import alarms, report
from moderay.labels.counts import PolicyCounts


def test_a_miss_that_was_not_promised_raises_an_alarm() -> None:
    counts = PolicyCounts(
        ok=10_000,
        flagged=500,
        settled={"screen": 8_000, "reason": 2_000},
        audited={"screen": 400},
        overruled={"screen": 20},
        missed={"screen": 20},
    )
    reports = report(counts, ["screen", "reason"], {"screen": 0.05})
    screen = reports["screen"]
    assert screen.alarm and screen.missed_violations is not None
    assert screen.missed_violations[1] == pytest.approx(400)
    assert reports["reason"].missed_violations is None and not reports["reason"].audited
    assert [line.split(":")[0] for line in alarms({"spam": reports})] == ["spam"]
    [promised] = alarms({"spam": reports})
    estimates = report(counts, ["screen", "reason"], {"screen": 0.05}, ["screen"])
    [estimated] = alarms({"spam": estimates})
    assert estimates["screen"].estimated and not estimates["reason"].estimated
    assert "5.0% was promised" in promised
    assert estimated == promised.replace("was promised", "was estimated")
    fewer = counts.model_copy(update={"missed": {"screen": 1}})
    kept = report(fewer, ["screen", "reason"], {"screen": 0.05})
    assert not kept["screen"].alarm and alarms({"spam": kept}) == []
