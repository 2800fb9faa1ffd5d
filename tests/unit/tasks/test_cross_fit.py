"""Cross-fitted screens: from fewer labels, their promise an estimate, and called that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.spam_texts import TEACHER, corpus

import moderay
from moderay.core.errors import UserError
from moderay.core.hashing import digest
from moderay.judges.screen import Linear, Screen, load_screen, save_screen
from moderay.labels.analysis.intervals import allowed_misses
from moderay.pipeline.manifest import policy_record
from moderay.tasks.calibrate.contents import distinct
from moderay.tasks.calibrate.cross_fit import FOLDS, cross_fit, deal
from moderay.tasks.calibrate.linear_fit import mean_of
from moderay.tasks.calibrate.screen_training import calibrate_screen, cross_fitted_screen


@pytest.fixture(scope="module")
def screen() -> Screen:
    return cross_fitted_screen(*corpus(600, 0), teacher=TEACHER)


def test_folds_share_either_kind_out_and_are_the_same_in_any_order() -> None:
    texts, violates = corpus(603, 1)
    contents = distinct(texts, violates)
    fold = deal(contents)
    for kind in (contents.violates, ~contents.violates):
        counts = np.bincount(fold[kind], minlength=FOLDS)
        assert counts.sum() == kind.sum() and counts.max() - counts.min() <= 1
    order = np.random.default_rng(0).permutation(len(texts))
    again = distinct(texts.take(pa.array(order)), violates[order])
    assert again.texts.equals(contents.texts) and np.array_equal(deal(again), fold)


def test_mean_model_scores_the_mean_of_its_models() -> None:
    random = np.random.default_rng(0)
    models = [
        Linear(random.integers(-300, 300, 2**18).astype(np.int16), 10.0**-power, power / 2)
        for power in range(1, 4)
    ]
    texts, _ = corpus(40, 2)
    expected = np.mean([model.scores(texts) for model in models], axis=0)
    mean = mean_of(models)
    assert np.abs(mean.weights).max() == np.iinfo(np.int16).max
    np.testing.assert_allclose(mean.scores(texts), expected, atol=0.01)
    assert np.array_equal(mean_of(models).weights, mean.weights)


def test_all_violations_set_the_cut_off(screen: Screen) -> None:
    card = screen.card
    assert (card.promise, card.folds) == ("estimated", FOLDS)
    assert card.held_out_rows == card.rows and card.held_out_violations == card.violations
    assert card.misses_allowed == allowed_misses(card.violations, 0.05, 0.95)
    contents = distinct(*corpus(600, 0))
    scores = cross_fit(contents).scores
    assert (scores[contents.violates] < card.cut_off).sum() == card.misses_allowed
    assert (scores < card.cut_off).mean() == pytest.approx(card.settled)


def test_screen_settles_and_misses_as_its_card_says(screen: Screen) -> None:
    texts, violates = corpus(4000, 3)
    settled = np.asarray(screen.settle(texts, pa.table({})).is_valid())
    assert settled[violates].mean() <= 0.05
    assert settled.mean() == pytest.approx(screen.card.settled, abs=0.06) and settled.mean() > 0.6


def test_fewer_violations_do_than_with_a_part_held_out() -> None:
    texts, violates = corpus(400, 4)
    few = violates & (np.cumsum(violates) <= 59)
    kept = few | ~violates
    texts = texts.filter(pa.array(kept))
    with pytest.raises(UserError, match="59 distinct contents that violate are too few: 79"):
        calibrate_screen(texts, few[kept], teacher=TEACHER)
    assert cross_fitted_screen(texts, few[kept], teacher=TEACHER).card.settled > 0.3
    with pytest.raises(UserError, match="58 distinct contents that violate are too few: 59 are"):
        cross_fitted_screen(texts, few[kept] & (np.cumsum(few[kept]) < 59), teacher=TEACHER)
    with pytest.raises(UserError, match="24 distinct contents that violate are too few: 25 are"):
        cross_fitted_screen(
            texts, few[kept] & (np.cumsum(few[kept]) < 25), teacher=TEACHER, max_miss=0.3
        )
    with pytest.raises(UserError, match="39 distinct contents that do not violate are too few"):
        safe = np.cumsum(~violates) * ~violates
        some = violates | ((safe > 0) & (safe < 40))
        cross_fitted_screen(
            corpus(400, 4)[0].filter(pa.array(some)), violates[some], teacher=TEACHER
        )


def test_no_content_is_scored_by_a_model_that_saw_it() -> None:
    """Labels that are chance cannot be told from other contents; from the same ones they can."""
    texts, violates = corpus(800, 5)
    chance = np.random.default_rng(0).permutation(violates)
    screen = cross_fitted_screen(texts, chance, teacher=TEACHER)
    assert screen.card.settled < 0.15
    assert screen.scores(texts)[chance].mean() > screen.scores(texts)[~chance].mean() + 1


def test_same_contents_give_the_same_screen_and_duplicates_count_once(screen: Screen) -> None:
    texts, violates = corpus(600, 0)
    order = np.random.default_rng(0).permutation(1200)
    upper = pa.array([text.upper() for text in texts.to_pylist()], pa.large_string())
    twice = pa.concat_arrays([texts, upper]).take(pa.array(order))
    again = cross_fitted_screen(twice, np.tile(violates, 2)[order], teacher=TEACHER)
    assert again.key == screen.key


def test_saved_screen_comes_back_the_same(screen: Screen, tmp_path: Path) -> None:
    save_screen(screen, tmp_path)
    loaded = load_screen(tmp_path)
    assert loaded.card == screen.card and loaded.key == screen.key
    assert json.loads((tmp_path / "card.json").read_text())["promise"] == "estimated"
    assert loaded.identity()["promise"] == "estimated"


def test_card_of_an_exact_promise_is_as_before_there_were_others(tmp_path: Path) -> None:
    """Its key too, or what was judged under it would be judged again."""
    screen = calibrate_screen(*corpus(600, 0), teacher=TEACHER)
    save_screen(screen, tmp_path)
    written = json.loads((tmp_path / "card.json").read_text())
    assert not {"promise", "folds"} & written.keys() and screen.key == digest(written)
    loaded = load_screen(tmp_path)
    assert (loaded.card.promise, loaded.card.folds) == ("exact", None)
    assert loaded.key == screen.key


@pytest.fixture
def folder(tmp_path: Path, job: Callable[..., Path]) -> Path:
    """A job over texts of which people said what they are."""
    texts, violates = corpus(700, 6)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": texts, "bad": violates}), tmp_path / "in/a.parquet")
    job()
    return tmp_path


def test_estimated_promise_is_called_that_wherever_it_is_shown(
    folder: Path, job: Callable[..., Path]
) -> None:
    def told(audit: float) -> tuple[Any, list[str]]:
        cascade = [{"screen": "screens/spam"}, {"reason": {}}]
        checked = moderay.check(job(cascade=cascade, audit=audit))
        return policy_record(checked.cascades[0]), [
            note for note in checked.notes if "screen" in note
        ]

    made = moderay.calibrate(
        job(), policy="spam", gold="bad", out=folder / "screens/spam", cross_fit=True
    )
    assert "estimated" in made["promise"] and "each out of one of 5 models" in made["held out"]
    record, notes = told(0.0)
    assert record.promises == {"screen": 0.05} and record.estimated == ("screen",)
    assert notes == [
        "spam: the screen's promise to miss at most 5.0% of violations is estimated, since it is "
        "cross-fitted; nothing watches it: set audit, such as 0.01"
    ]
    assert told(0.02)[1] == [
        notes[0].replace(notes[0][notes[0].index("nothing") :], "audit: 0.02 watches it")
    ]

    exact = moderay.calibrate(job(), policy="spam", gold="bad", out=folder / "screens/spam")
    assert exact["promise"] == "misses at most 0.05 of violations, with confidence 0.95"
    record, notes = told(0.0)
    assert record.estimated == () and notes == []


def test_bands_are_not_cross_fitted(folder: Path, job: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="--cross-fit is for screens"):
        moderay.calibrate(
            job(), policy="spam", gold="bad", judge="glance", out=folder / "b", cross_fit=True
        )
    assert not (folder / "b").exists()
