"""The prevalence benchmark: intervals that hold pass it, and others do not."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from benchmarks import prevalence
from benchmarks.prevalence import Interval, capped, hardest, simulated, table, under
from scipy.special import ndtri

from moderay.labels.analysis.prevalence.interval import (
    Floats,
    StratumHits,
    stratified_interval,
)


def wald(sample: StratumHits) -> tuple[Floats, Floats]:
    """The interval that is to be caught: it is one point where there are no hits."""
    half = ndtri(0.975) * np.sqrt(sample.variance)
    return sample.share - half, sample.share + half


def found(interval: Interval, names: list[str], repeats: int) -> int:
    """Cells of these corpora that cover less than they say."""
    corpora = {name: simulated()[f"simulated: {name}"] for name in names}
    rows = table(corpora, interval, repeats)
    assert len(rows) >= 30 * len(names)
    return len(under(rows, repeats))


def test_intervals_hold_where_the_model_is_good_and_where_it_is_blind() -> None:
    assert not found(stratified_interval, ["good", "blind to all"], 300)


def test_intervals_that_do_not_hold_are_caught() -> None:
    assert found(wald, ["good"], 300) > 10


def test_intervals_hold_exactly_where_all_violations_lie_in_one_stratum() -> None:
    corpora = simulated()
    assert hardest(corpora, stratified_interval) >= 0.95
    assert hardest({"one": corpora["simulated: useless"]}, partial(capped, 2.0)) < 0.93


@pytest.mark.slow
def test_intervals_hold_in_every_cell() -> None:
    names = [name.removeprefix("simulated: ") for name in simulated()]
    assert not found(stratified_interval, names, prevalence.REPEATS)


@pytest.mark.slow
def test_intervals_hold_on_what_people_labelled() -> None:
    if not prevalence.DATA.is_dir():
        pytest.skip(f"{prevalence.DATA} is not there")
    rows = table(prevalence.labelled(), stratified_interval)
    assert len(rows) > 300
    assert not len(under(rows))
