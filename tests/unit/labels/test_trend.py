"""Nights side by side: what rings, what does not, and since when."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.project import ROOT

from moderay.config.job import Alarms
from moderay.config.policy import load_policy
from moderay.core.verdicts import Status, Verdict, verdict_array
from moderay.labels.analysis.trend import Night, trend, trend_json
from moderay.labels.counts import CountsTotal, PolicyCounts
from moderay.labels.decisions import decide, distribution, summary

BINS = np.array([0.6, 0.2, 0.1, 0.05, 0.03, 0.015, 0.005])


def night(
    number: int,
    rows: int,
    share: float,
    rng: np.random.Generator,
    bins: np.ndarray = BINS,
    failed: float = 0.0,
    tokens: int = 100,
) -> Night:
    flagged, lost = int(rng.binomial(rows, share)), int(rng.binomial(rows, failed))
    histogram = [*rng.multinomial(rows - flagged, bins), *rng.multinomial(flagged, bins[::-1])]
    counts = PolicyCounts(
        ok=rows - lost,
        timeout=lost,
        flagged=flagged,
        labels={"SP0": rows - flagged, "SP4": flagged},
        bins={i: int(count) for i, count in enumerate(histogram)},
    )
    policies = {"spam": counts}
    return Night(
        f"2026-11-{number:02d}", rows, 8, 0, flagged, policies, requests=rows, tokens=tokens * rows
    )


@pytest.mark.parametrize(
    ("forced", "of", "rings"), [(600, 600, True), (5, 5, True), (30, 600, False), (0, 600, False)]
)
def test_forced_verdicts_ring_above_their_share_from_the_first_night_on(
    forced: int, of: int, rings: bool
) -> None:
    counts = {"spam": PolicyCounts(ok=of, forced=forced)}
    night = Night("2026-11-01", of, 1, 0, 0, counts)
    alarms = [str(alarm) for alarm in trend([night], Alarms()).alarms]
    assert [alarm.partition(" were forced")[0] for alarm in alarms] == (
        [f"spam: 100.00% of {of} verdicts of 2026-11-01"] if rings else []
    )
    assert not trend([night], Alarms(forced=None)).alarms


def test_alarm_rings_on_the_fifth_night_and_not_before() -> None:
    rng = np.random.default_rng(1)
    actual = [night(i, 100_000, 0.02 if i < 5 else 0.03, rng) for i in range(1, 13)]
    for last in range(1, 13):
        alarms = trend(actual[:last], Alarms()).alarms
        assert len(alarms) == (last >= 5) and all(
            alarm.since == "2026-11-05" for alarm in alarms
        ), alarms


@pytest.mark.parametrize("rows", [2_000, 100_000, 10**7])
def test_fifty_series_without_a_change_are_silent(rows: int) -> None:
    rng = np.random.default_rng(2)
    rung = 0
    for _ in range(50):
        actual = [night(i, rows, 0.02, rng) for i in range(1, 8)]
        rung += any(trend(actual[:last], Alarms()).alarms for last in range(1, 8))
    assert rung <= 1


def test_share_that_goes_up_and_down_has_not_changed() -> None:
    rng = np.random.default_rng(3)
    rung = 0
    for _ in range(50):
        actual = [
            night(i, 10**6, 0.02 * float(np.exp(0.15 * rng.standard_normal())), rng)
            for i in range(1, 15)
        ]
        rung += bool(trend(actual, Alarms()).alarms)
    assert rung <= 1


def test_small_change_of_many_rows_is_certain_and_rings_only_where_asked_for() -> None:
    rng = np.random.default_rng(4)
    actual = [night(i, 10**7, 0.02 if i < 5 else 0.0206, rng) for i in range(1, 8)]
    assert not trend(actual, Alarms()).alarms
    (alarm,) = trend(actual, Alarms(flagged=0.01)).alarms
    assert "since 2026-11-05" in alarm.text and "1.03 times as many" in alarm.text


def test_distribution_that_shifts_below_the_threshold_rings() -> None:
    rng = np.random.default_rng(5)
    shifted = np.array([0.4, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03])
    actual = [night(i, 50_000, 0.02, rng, BINS if i < 6 else shifted) for i in range(1, 8)]
    (alarm,) = trend(actual, Alarms()).alarms
    assert (
        "P(violates) is distributed otherwise since 2026-11-06" in alarm.text
        and alarm.since == "2026-11-06"
    )
    assert not trend(actual, Alarms(drift=None)).alarms


def test_failures_and_tokens_of_the_last_night_ring() -> None:
    rng = np.random.default_rng(6)
    actual = [night(i, 50_000, 0.02, rng) for i in range(1, 6)]
    assert (
        trend([*actual, night(6, 50_000, 0.02, rng, failed=0.02)], Alarms())
        .alarms[0]
        .text.endswith("rows of 2026-11-06 failed; limit 1.00%")
    )
    assert not trend(
        [*actual, night(6, 50_000, 0.02, rng, failed=0.02), night(7, 50_000, 0.02, rng)], Alarms()
    ).alarms
    rising = [*actual, night(6, 50_000, 0.02, rng, tokens=160)]
    assert not trend(rising, Alarms()).alarms
    (alarm,) = trend(rising, Alarms(tokens=0.5)).alarms
    assert str(alarm) == "160.0 tokens a row on 2026-11-06, 100.0 before; limit 1.5 times as many"


def test_trend_is_one_json_object() -> None:
    rng = np.random.default_rng(7)
    nights = [night(i, 100_000, 0.02 if i < 5 else 0.03, rng) for i in range(1, 8)]
    content = json.loads(trend_json(trend(nights, Alarms())))
    assert [one["date"] for one in content["nights"]] == [one.date for one in nights]
    assert content["nights"][0]["policies"]["spam"]["ok"] == 100_000
    assert content["policies"]["spam"]["change"]["since"] == "2026-11-05"


def test_trend_of_nothing_is_one_sentence(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("trend", tmp_path)
    assert (
        result.returncode == 2
        and "holds no labels of moderay" in result.stderr
        and "Traceback" not in result.stderr
    )


def test_reasons_that_were_never_there_before_are_named() -> None:
    def failing(number: int, detail: str) -> Night:
        values = [Verdict(Status.OK, scores=[0.9, 0.05, 0.05], answer="SP0")] * 8 + [
            Verdict(Status.TIMEOUT, detail=detail)
        ] * 2
        decided = decide(verdict_array(values, 0), load_policy(ROOT / "policies/spam").rule)
        counts = PolicyCounts.of(summary(decided) | distribution(decided))
        return Night(f"2026-11-{number:02d}", 10, 1, 0, 0, {"spam": counts})

    usual = [failing(number, f"no answer in {number} s") for number in range(1, 5)]
    assert trend(usual, Alarms()).policies["spam"].reasons == ()
    actual = trend([*usual, failing(5, "the engine went " + "away " * 40)], Alarms())
    (reason,) = actual.policies["spam"].reasons
    assert reason.startswith("timeout: the engine went away") and len(reason) < 100
    assert (
        actual.policies["spam"].failed[-1].count == 2
        and actual.policies["spam"].flagged[-1].of == 8
    )
    # Two of ten are nothing to be certain of; forty of two hundred are.
    total = CountsTotal()
    for _ in range(20):
        total.add(actual.nights[-1].policies["spam"])
    many = {"spam": total.counts()}
    (alarm,) = trend([*usual, replace(actual.nights[-1], rows=200, policies=many)], Alarms()).alarms
    assert str(alarm) == "spam: 20.00% of 200 rows of 2026-11-05 failed; limit 1.00%"
