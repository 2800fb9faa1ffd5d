"""What more labels would settle: told where the labels tell it, and refused elsewhere."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spam_texts import TEACHER, corpus

from moderay.tasks.calibrate.learning_curve import Gain, NoGain, Scored, gain_of_more
from moderay.tasks.calibrate.screen_training import calibrate_screen, cross_fitted_screen

CARD = calibrate_screen(*corpus(600, 0), teacher=TEACHER).card


@settings(deadline=None)
@given(
    scores=st.lists(st.integers(0, 50), min_size=2, max_size=60),
    data=st.data(),
)
def test_share_settled_is_that_below_the_violation_that_sets_the_cut_off(
    scores: list[int], data: st.DataObject
) -> None:
    """Scored once each, (k+1)/(n+1) of the violations is where the (k+1)-th smallest lies."""
    ordered = np.sort(np.array(scores, np.float32))
    violates = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    )
    violates[data.draw(st.integers(0, len(scores) - 1))] = True
    n = int(violates.sum())
    k = data.draw(st.integers(0, n - 1))
    scored = Scored(ordered, np.arange(len(scores)), violates, models=1, size=1.0)
    expected = (ordered < ordered[violates][k]).mean()
    assert scored.settled(np.ones(len(scores)), (k + 1) / (n + 1)) == pytest.approx(expected)


@pytest.mark.parametrize("cross_fit", [False, True])
def test_gain_where_there_is_one(cross_fit: bool) -> None:
    """Texts that few words tell apart, and few labels; the same in any order."""
    make = cross_fitted_screen if cross_fit else calibrate_screen
    texts, violates = corpus(500, 1, fewest=1, stray=0.5)
    card = make(texts, violates, teacher=TEACHER).card
    gain = gain_of_more(texts, violates, card)
    assert isinstance(gain, Gain) and gain.low < gain.estimate < gain.high
    assert gain.estimate > 0
    again = gain_of_more(texts[::-1], violates[::-1], card)
    assert again == gain


def test_gain_that_labels_cannot_tell_is_not_told() -> None:
    texts, violates = corpus(600, 2)
    chance = np.random.default_rng(0).permutation(violates)
    gain = gain_of_more(texts, chance, CARD)
    assert isinstance(gain, Gain) and gain.low <= 0 <= gain.high
    assert re.fullmatch(
        r"no change that these labels can tell \(-\d+\.\d to \+\d+\.\d points; extrapolated\)",
        str(gain),
    )
    assert (
        str(Gain(1000, 0.0312, 0.012, 0.05)) == "+3.1 points settled (+1.2 to +5.0; extrapolated)"
    )


@pytest.mark.parametrize(
    ("rows", "violations", "more", "why"),
    [
        (
            600,
            99,
            1000,
            "not known: a curve takes 100 distinct contents of either kind, and of one there are "
            "99",
        ),
        (330, 110, 1000, "not known: 1,000 more are too far from 330"),
        (600, 110, 5, "not known: 5 more are too few beside 600 to make a difference"),
    ],
)
def test_curve_is_refused_where_it_says_nothing(
    rows: int, violations: int, more: int, why: str
) -> None:
    texts = pa.array([f"text {row}" for row in range(rows)])
    gain = gain_of_more(texts, np.arange(rows) < violations, CARD, more)
    assert isinstance(gain, NoGain) and str(gain) == why
