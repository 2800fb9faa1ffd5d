"""Maps of P to what people said: they rise, they undo what was planted, the better one is taken."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderay.core.calibration import Calibration, log_odds, sigmoid
from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import Status, Verdict, verdict_array
from moderay.labels.analysis.calibration_fit import FOLDS, Fitted, fit_calibration
from moderay.labels.decisions import decide, verdicts

SPAM = DecisionRule("spam", ("SP0", "SP2", "SP4"), (False, True, True), 0.5)


def drawn(rows: int, seed: int, true: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P as a judge gives it, whether rows violate, and the share that truly does."""
    random = np.random.default_rng(seed)
    p = random.beta(0.4, 0.6, rows).astype(np.float32)
    shares = {
        "line": sigmoid(0.4 * log_odds(p.astype(np.float64)) - 1.5),
        "steps": np.where(p < 0.3, 0.02, np.where(p < 0.7, 0.5, 0.55)),
    }
    return p, random.random(rows) < shares[true], shares[true]


def fitted(rows: int, true: str, seed: int = 0) -> tuple[Fitted, np.ndarray, np.ndarray]:
    p, violates, share = drawn(rows, seed, true)
    folds = np.random.default_rng(1).permutation(rows) % FOLDS
    return fit_calibration("reason", p, violates, np.ones(rows), folds), p, share


@pytest.mark.parametrize(("true", "method"), [("line", "platt"), ("steps", "isotonic")])
def test_better_map_is_taken_and_finds_what_was_planted(true: str, method: str) -> None:
    found, p, share = fitted(8000, true)
    assert found.helps and found.calibration.method == method
    read = found.calibration.of(p)
    assert np.abs(read - share).mean() < 0.02 < np.abs(p - share).mean()
    assert found.log_loss[method] == min(found.log_loss.values())


def test_p_that_is_right_needs_no_map() -> None:
    random = np.random.default_rng(3)
    p = random.random(4000).astype(np.float32)
    folds = np.arange(4000) % FOLDS
    found = fit_calibration("reason", p, random.random(4000) < p, np.ones(4000), folds)
    assert np.abs(found.calibration.of(p) - p).mean() < 0.03
    assert found.log_loss["raw"] == pytest.approx(min(found.log_loss.values()), abs=0.003)


def test_row_that_stands_for_three_counts_as_three() -> None:
    p, violates, _ = drawn(400, 5, "line")
    weights = np.tile([1.0, 3.0], 200)
    folds = np.arange(400) // 2 % FOLDS
    once = fit_calibration("reason", p, violates, weights, folds)
    rows = np.repeat(np.arange(400), weights.astype(int))
    thrice = fit_calibration("reason", p[rows], violates[rows], np.ones(len(rows)), folds[rows])
    assert once.log_loss["raw"] == pytest.approx(thrice.log_loss["raw"])
    assert np.abs(once.calibration.of(p) - thrice.calibration.of(p)).max() < 0.02


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["line", "steps"]))
def test_map_never_falls_and_stays_a_share(seed: int, true: str) -> None:
    found, _, _ = fitted(60, true, seed)
    grid = np.linspace(0, 1, 501).astype(np.float32)
    read = found.calibration.of(grid)
    assert (np.diff(read) >= 0).all() and read.min() >= 0 and read.max() <= 1


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("platt", ((-1.0, 0.0),)),
        ("platt", ()),
        ("isotonic", ((0.1, 0.5), (0.2, 0.4))),
        ("isotonic", ((0.2, 0.1), (0.2, 0.4))),
        ("isotonic", ((0.1, float("nan")),)),
        ("isotonic", ((0.1, 1.5),)),
    ],
)
def test_what_falls_is_no_map(method: str, numbers: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match=r"must rise|needs numbers"):
        Calibration("reason", method, numbers)  # type: ignore[arg-type]


def test_only_p_of_its_judge_is_read_and_scores_stay() -> None:
    scores = [0.75, 0.125, 0.125]
    said = [
        Verdict(Status.OK, scores, decided_by="reason"),
        Verdict(Status.OK, scores, decided_by="glance"),
        Verdict(Status.OK, [0.0, 0.0, 1.0], decided_by="rules"),
        Verdict(Status.OK, answer="SP4", decided_by="reason"),
        Verdict(Status.TIMEOUT),
    ]
    halves = Calibration("reason", "isotonic", ((0.0, 0.0), (0.25, 0.625), (1.0, 1.0)))
    raw = decide(verdict_array(said, 0), SPAM)
    read_by = DecisionRule(SPAM.policy, SPAM.labels, SPAM.violating, SPAM.threshold, halves)
    read = decide(verdict_array(said, 0), read_by)
    assert raw.field("probability").to_pylist() == [0.25, 0.25, 1.0, None, None]
    assert read.field("probability").to_pylist() == [0.625, 0.25, 1.0, None, None]
    assert read.field("violates").to_pylist() == [True, False, True, True, None]
    assert read.field("label").to_pylist()[0] == "SP2"
    assert read.field("scores").equals(raw.field("scores"))
    # Decided anew without the map, it is as before; and with it twice as with it once.
    assert decide(verdicts(read), SPAM).field("probability").equals(raw.field("probability"))
    assert decide(verdicts(read), read_by).equals(read)
    assert pa.types.is_float32(read.field("probability").type)
