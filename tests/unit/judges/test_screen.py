"""Bounds, screens and their calibration: promises that hold where the truth is known."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm
from support.outputs import plain
from support.spam_texts import BAD, SAFE, TEACHER, corpus

from moderay.core.errors import Problems, UserError
from moderay.core.verdicts import VERDICT
from moderay.judges.screen import BLOCK, Screen, load_screen, save_screen
from moderay.labels.analysis.intervals import allowed_misses, cut_off, interval, violations_needed
from moderay.tasks.calibrate.screen_training import calibrate_cut, calibrate_screen


@pytest.fixture(scope="module")
def screen() -> Screen:
    return calibrate_screen(*corpus(1200, 0), teacher=TEACHER)


def test_bounds_known_values() -> None:
    assert violations_needed(0.05, 0.95) == 59 and violations_needed(0.01, 0.95) == 299
    assert allowed_misses(58, 0.05, 0.95) is None and allowed_misses(0, 0.05, 0.95) is None
    assert [allowed_misses(n, 0.05, 0.95) for n in (59, 92, 93, 124)] == [0, 0, 1, 2]
    assert interval(0, 0, 0.95) == (0, 1)
    assert interval(0, 59, 0.9) == (0, pytest.approx(1 - 0.05 ** (1 / 59)))
    assert interval(3, 10, 0.95) == pytest.approx((0.06674, 0.65245), abs=1e-5)
    assert interval(10, 10, 0.95)[1] == 1
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        violations_needed(0, 0.95)


shares = st.floats(0.005, 0.6)


@settings(deadline=None)
@given(n=st.integers(1, 3000), max_miss=shares, confidence=shares.map(lambda share: 1 - share))
def test_allowed_misses_is_the_largest_that_the_beta_distribution_allows(
    n: int, max_miss: float, confidence: float
) -> None:
    k = allowed_misses(n, max_miss, confidence)
    slack = 1e-9  # two ways to compute one number
    assert k is None or beta.cdf(max_miss, k + 1, n - k) >= confidence - slack
    following = 0 if k is None else k + 1
    assert following == n or beta.cdf(max_miss, following + 1, n - following) < confidence + slack
    needed = violations_needed(max_miss, confidence)
    assert (n >= needed) == (k is not None)


@settings(deadline=None)
@given(scores=st.lists(st.integers(0, 6), min_size=1, max_size=300), max_miss=shares)
def test_cut_off_with_ties_settles_no_more_than_allowed(scores: list[int], max_miss: float) -> None:
    actual = cut_off(np.array(scores, np.float32), max_miss, 0.9)
    allowed = allowed_misses(len(scores), max_miss, 0.9)
    if actual is None:
        assert allowed is None
        return
    at, k = actual
    assert k == allowed and at in scores
    assert sum(score < at for score in scores) <= k < sum(score <= at for score in scores)


def test_cut_off_keeps_its_promise_where_the_truth_is_known() -> None:
    """The true share missed is above max_miss in about 5% of draws, for a continuous score and for
    one with many ties.
    """
    random = np.random.default_rng(0)
    broken = {"normal": 0, "rounded": 0}
    for _ in range(1000):
        drawn = random.normal(2, 1, 400)
        broken["normal"] += norm.cdf(cut_off(drawn, 0.05, 0.95)[0], 2, 1) > 0.05  # type: ignore[index]
        at = cut_off(np.round(drawn * 2) / 2, 0.05, 0.95)[0]  # type: ignore[index]
        broken["rounded"] += norm.cdf(at - 0.25, 2, 1) > 0.05
    assert 15 <= broken["normal"] <= 65 and broken["rounded"] <= 65


def test_cut_on_another_judges_probability() -> None:
    """Glance's P: what the cut says it settles is what is below it, a safe content counting for as
    many as it stands for.
    """
    random = np.random.default_rng(1)
    violates = np.repeat([True, False], [200, 300])
    p = np.concatenate([random.beta(5, 2, 200), random.beta(1, 6, 300)]).astype(np.float32)
    cut = calibrate_cut(p, violates, 0.05, 0.95)
    assert cut.violations == 200 and (
        p[violates] < cut.cut_off
    ).sum() == cut.misses_allowed == allowed_misses(200, 0.05, 0.95)
    assert cut.settled == pytest.approx((p < cut.cut_off).mean())
    doubled = calibrate_cut(
        np.concatenate([p, p[200:]]), np.concatenate([violates, violates[200:]]), 0.05, 0.95
    )
    assert calibrate_cut(p, violates, 0.05, 0.95, safe_weight=2).settled == pytest.approx(
        doubled.settled
    )
    assert [point.settled for point in cut.curve] == sorted(
        point.settled for point in cut.curve
    ) and len(cut.curve) == 20
    with pytest.raises(ValueError, match="NaN"):
        calibrate_cut(np.where(violates, np.nan, p), violates, 0.05, 0.95)


def test_screen_settles_most_safe_rows_and_misses_what_it_promised(screen: Screen) -> None:
    texts, violates = corpus(4000, 1)
    settled = screen.scores(texts) < screen.card.cut_off
    assert settled[~violates].mean() > 0.9
    assert settled[violates].mean() <= 0.05
    assert settled.mean() == pytest.approx(screen.card.settled, abs=0.06)
    card = screen.card
    assert card.rows == 1200 and card.teacher == TEACHER and screen.policy == "spam"
    assert card.misses_allowed == allowed_misses(card.held_out_violations, 0.05, 0.95)


def test_settle_gives_verdicts_below_the_cut_off_and_null_elsewhere(screen: Screen) -> None:
    longer = (" ".join(SAFE) + " ") * 5
    assert (
        screen.scores(pa.array([longer]))[0] < screen.card.cut_off
        and len(longer) > screen.card.longest
    )
    texts = pa.array([" ".join(SAFE[:12]), " ".join(BAD), None, "", longer], pa.string())
    actual = screen.settle(texts, pa.table({}))
    assert actual.type == pa.struct(list(VERDICT))
    verdict, *others = actual.to_pylist()
    assert others == [None] * 4
    assert {name: value for name, value in verdict.items() if value is not None} == {
        "status": "ok",
        "decided_by": "screen",
        "origin": "judged",
    }
    assert len(screen.settle(texts.slice(0, 0), pa.table({}))) == 0


def test_scores_of_odd_texts(screen: Screen) -> None:
    texts = ["a", "Ä", "PRIZE Ünïcode 🎉 جائزة", "\0", " ", "\ud7ff" * 3]
    scores = screen.scores(pa.array(texts, pa.large_string()))
    assert scores.dtype == np.float32 and np.isfinite(scores).all()
    assert np.isnan(screen.scores(pa.array([None, ""], pa.string()))).all()
    assert np.array_equal(screen.scores(pa.array(["prize ünïcode 🎉 جائزة", "ä"])), scores[[2, 1]])


words = st.lists(
    st.one_of(
        st.none(), st.text(max_size=12), st.sampled_from([*SAFE, *BAD]), st.just("é🎉" * 12_000)
    ),
    max_size=8,
)


@settings(deadline=None)
@given(before=words, after=words)
def test_scores_do_not_depend_on_the_batch(
    screen: Screen, before: list[str | None], after: list[str | None]
) -> None:
    text = "claim the old prize on sunday"
    alone = screen.scores(pa.array([text]))[0]
    batch = pa.array([*before, text, *after], pa.large_string())
    assert screen.scores(batch)[len(before)] == alone
    assert screen.scores(batch.slice(len(before), 1))[0] == alone


@pytest.mark.parametrize("length", [BLOCK - 6, BLOCK - 5, BLOCK - 1, BLOCK, BLOCK + 1, 3_000_000])
def test_scores_of_long_texts_are_those_of_their_ngrams(screen: Screen, length: int) -> None:
    """Where a text is cut into blocks must not show: compared with a plain count of n-grams in
    Python.
    """
    period = "claim your prize by the old river; "
    text = (period * (length // len(period) + 1))[:length]
    assert screen.scores(pa.array(["x", text, "y"]))[1] == np.float32(
        _by_hand(screen, text, len(period))
    )


def _by_hand(screen: Screen, text: str, period: int) -> float:
    """The score from the module's description alone. A text that repeats itself has each inner
    n-gram many times.
    """
    padded, total = f" {text}    ".encode(), 0
    seen: dict[bytes, int] = {}
    for size in range(3, 6):
        inner = len(text) - 20
        ngrams = {padded[at : at + size]: 0 for at in range(1, period + 1)}
        for at in range(1, period + 1):
            ngrams[padded[at : at + size]] += (inner - at) // period + 1
        for at in [0, *range(inner + 1, len(text) + 1)]:
            ngrams[padded[at : at + size]] = ngrams.get(padded[at : at + size], 0) + 1
        seen |= ngrams
    assert sum(seen.values()) == 3 * (len(text) + 1)
    for ngram, count in seen.items():
        total += count * int(screen.weights[_bucket(ngram)])
    return total * screen.card.scale / math.sqrt(3 * (len(text) + 1)) + screen.card.intercept


def _bucket(ngram: bytes) -> int:
    rolled = 0
    for byte in ngram:
        rolled = (rolled * 0x9E3779B1 + byte) % 2**32
    return ((rolled ^ rolled >> 15) * 0x85EBCA6B % 2**32) >> 14


def test_saved_screen_comes_back_the_same(screen: Screen, tmp_path: Path) -> None:
    save_screen(screen, tmp_path / "screens" / "spam")
    loaded = load_screen(tmp_path / "screens" / "spam")
    assert (
        loaded.card == screen.card
        and loaded.key == screen.key
        and np.array_equal(loaded.weights, screen.weights)
    )
    assert sorted(file.name for file in (tmp_path / "screens" / "spam").iterdir()) == [
        "card.json",
        "weights.npy",
    ]
    texts, _ = corpus(50, 2)
    again = pickle.loads(pickle.dumps(loaded))
    assert again.key == screen.key and again.settle(texts, pa.table({})).equals(
        screen.settle(texts, pa.table({}))
    )


def test_key_tells_screens_apart(screen: Screen) -> None:
    other = screen.card.model_copy(update={"cut_off": screen.card.cut_off - 1})
    assert Screen(other, screen.weights).key != screen.key


def refused(folder: Path, tmp_path: Path) -> list[str]:
    with pytest.raises(Problems) as actual:
        load_screen(folder)
    return plain(str(actual.value), tmp_path).replace("\n    hint: ", " -> ").splitlines()


AGAIN = "-> train the screen again: moderay calibrate"


def test_missing_files_are_named_together(tmp_path: Path) -> None:
    hint = "-> a screen is a folder with card.json and weights.npy"
    assert refused(tmp_path / "no", tmp_path) == [
        f"<tmp>/no/card.json: cannot be read: No such file or directory {hint}",
        f"<tmp>/no/weights.npy: cannot be read: No such file or directory {hint}",
    ]


def test_damaged_card_and_arrays_are_refused(screen: Screen, tmp_path: Path) -> None:
    save_screen(screen, tmp_path)
    whole = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**whole, "max_miss": 2, "scale": None}))
    np.save(tmp_path / "weights.npy", np.zeros(7))
    assert refused(tmp_path, tmp_path) == [
        "<tmp>/card.json: no screen's card: it is damaged (max_miss: Input should be less than 1; "
        f"scale: Input should be a valid number) {AGAIN}",
        f"<tmp>/weights.npy: holds float64 (7,), not int16 (262144,) {AGAIN}",
    ]
    (tmp_path / "card.json").write_text("{")
    (tmp_path / "weights.npy").write_bytes(b"\x93NUMPY")
    card, weights = refused(tmp_path, tmp_path)
    assert card.startswith(
        "<tmp>/card.json: no screen's card: it is damaged (no JSON: EOF while parsing"
    ) and weights.startswith("<tmp>/weights.npy: no array of numpy's")


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_card_that_is_not_finite_is_refused(screen: Screen, tmp_path: Path, value: str) -> None:
    save_screen(screen, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text()) | {"cut_off": float(value)}
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert refused(tmp_path, tmp_path) == [
        "<tmp>/card.json: no screen's card: it is damaged (cut_off: Input should be a finite "
        f"number) {AGAIN}"
    ]


def test_card_of_another_version_is_refused_and_one_with_more_fields_is_read(
    screen: Screen, tmp_path: Path
) -> None:
    save_screen(screen, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "colour": "red"}))
    assert load_screen(tmp_path).card.cut_off == screen.card.cut_off
    (tmp_path / "card.json").write_text(json.dumps({**card, "schema_version": 2}))
    assert refused(tmp_path, tmp_path) == [
        "<tmp>/card.json: no screen's card: it was written by another version of moderay (its "
        f"schema version is 2, this one knows 1) {AGAIN}"
    ]


def test_pickled_arrays_and_foreign_weights_are_refused(screen: Screen, tmp_path: Path) -> None:
    save_screen(screen, tmp_path)
    np.save(tmp_path / "weights.npy", np.array([{}], dtype=object), allow_pickle=True)
    (line,) = refused(tmp_path, tmp_path)
    assert line.startswith("<tmp>/weights.npy: no array of numpy's: Array can't be mem")
    np.save(tmp_path / "weights.npy", screen.weights + np.int16(1))
    assert refused(tmp_path, tmp_path) == [
        f"<tmp>/weights.npy: not the weights that card.json was written for {AGAIN}"
    ]


def test_screen_that_claims_more_than_memory_holds_is_refused(
    screen: Screen, tmp_path: Path
) -> None:
    save_screen(screen, tmp_path)
    header = {"descr": "<i2", "fortran_order": False, "shape": (2**42,)}
    with (tmp_path / "weights.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    (problem,) = refused(tmp_path, tmp_path)
    assert "no array of numpy's" in problem
    card = (tmp_path / "card.json").read_text()
    (tmp_path / "card.json").write_text(card.replace('"bits": 18', '"bits": 9999999999'))
    assert "features.bits" in refused(tmp_path, tmp_path)[0]


def test_screen_of_other_features_is_refused(screen: Screen, tmp_path: Path) -> None:
    save_screen(screen, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    card["features"]["largest"] = 6
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert refused(tmp_path, tmp_path) == [
        f"<tmp>/card.json: made by moderay {card['moderay']} with features that are not today's: "
        "smallest=3 largest=6 bits=18 version=1, here smallest=3 largest=5 bits=18 version=1 "
        f"{AGAIN}"
    ]


def test_too_few_violations_say_how_many_are_missing() -> None:
    texts, violates = corpus(200, 3)
    with pytest.raises(UserError) as actual:
        calibrate_screen(texts, violates & (np.cumsum(violates) <= 30), teacher=TEACHER)
    assert str(actual.value) == (
        "30 distinct contents that violate are too few: 79 are needed to miss at most 0.05 of "
        "violations with confidence 0.95, "
        "so label 49 more, or ask for less (--max-miss, --confidence)"
    )
    with pytest.raises(
        UserError, match=r"^0 distinct contents that do not violate are too few: label 40 more"
    ):
        calibrate_screen(texts, np.ones(200, bool), teacher=TEACHER)


def test_duplicates_count_once_whatever_their_case() -> None:
    texts, violates = corpus(400, 4)
    once = calibrate_screen(texts, violates, teacher=TEACHER)
    order = np.random.default_rng(0).permutation(800)
    twice = pa.concat_arrays(
        [texts, pa.array([text.upper() for text in texts.to_pylist()], pa.large_string())]
    )
    again = calibrate_screen(
        twice.take(pa.array(order)), np.tile(violates, 2)[order], teacher=TEACHER
    )
    assert again.key == once.key and once.card.rows == len(set(texts.to_pylist()))


def test_content_labelled_both_ways_violates_and_no_text_is_left_out() -> None:
    texts, violates = corpus(400, 5)
    both = pa.concat_arrays(
        [texts, texts.filter(pa.array(violates)), pa.array([None, ""], pa.large_string())]
    )
    labels = np.concatenate([violates, np.zeros(violates.sum(), bool), [True, True]])
    assert (
        calibrate_screen(both, labels, teacher=TEACHER).key
        == calibrate_screen(texts, violates, teacher=TEACHER).key
    )


def test_shuffled_labels_settle_next_to_nothing() -> None:
    texts, violates = corpus(1200, 6)
    screen = calibrate_screen(
        texts, np.random.default_rng(0).permutation(violates), teacher=TEACHER
    )
    assert screen.card.settled < 0.15
    assert (screen.scores(texts) < screen.card.cut_off).mean() < 0.15


def test_texts_that_share_nothing_still_make_a_screen() -> None:
    texts, random = pa.array([chr(i) for i in range(1, 128)]), np.random.default_rng(0)
    screen = calibrate_screen(texts, random.random(127) < 0.5, teacher=TEACHER, max_miss=0.2)
    assert screen.card.settled < 0.5 and np.isfinite(screen.scores(texts)).all()
