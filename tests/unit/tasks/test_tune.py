"""`moderay tune`: cascades computed from columns, what is certified of them, and the command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import betabinom, binom, binomtest
from support.outputs import plain
from support.project import ROOT

from moderay import api
from moderay.config.job import Job, UnitSize
from moderay.config.policy import load_policy
from moderay.core.verdicts import structs, trace
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.judges.cards import Teacher
from moderay.judges.cascade import Cascade, policy_key
from moderay.judges.glance import Band
from moderay.judges.screen import save_screen
from moderay.pipeline.check import Checked, check
from moderay.pipeline.stages.spans import read_span, spans
from moderay.tasks.calibrate.screen_training import calibrate_screen
from moderay.tasks.gold_parts import PARTS, TRAIN_ALONE, part_of
from moderay.tasks.quick_look import judge_here
from moderay.tasks.tune.certificate import (
    Counts,
    Goal,
    bounds,
    chances,
    last_certified,
    passes,
    recall_needed,
)
from moderay.tasks.tune.choice import choose
from moderay.tasks.tune.columns import Answers, GoldColumns, Shape, outcome
from moderay.tasks.tune.gold_rows import gold_rows
from moderay.tasks.tune.judging import columns, panel
from moderay.tasks.tune.records import TuneRecord
from moderay.tasks.tune.search import Space, candidate, decimal_between, frontier, try_all
from moderay.tasks.tune.tuned_job import built, tuned

Cli = Callable[..., subprocess.CompletedProcess[str]]
GOAL = Goal(recall=0.95, precision=0.8)
SCORES = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, np.nan]


def _array(rows: int, values: list[float]) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, rows, elements=st.sampled_from(np.float32(values).tolist()))


def _numbers(rows: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.int64, rows, elements=st.integers(0, 50))


@st.composite
def gold_columns(draw: Any) -> GoldColumns:
    rows = draw(st.integers(0, 12))

    def said() -> Answers:
        prompts = draw(_numbers(rows))
        return Answers(draw(_array(rows, SCORES)), prompts, prompts // 2, draw(_numbers(rows)))

    return GoldColumns(
        draw(hnp.arrays(np.bool_, rows)),
        draw(_array(rows, [0.0, 1.0, np.nan, np.nan])),
        draw(st.none() | _array(rows, [-2.0, 0.0, 1.0, np.nan])),
        {effort: said() for effort in ("low", "high")},
        {effort: said() for effort in ("low", "high")},
    )


shapes = st.builds(
    Shape,
    st.sampled_from(["low", "high"]),
    st.sampled_from([None, -1.0, 0.5]),
    st.sampled_from([None, Band(), Band(0.4), Band(None, 0.6), Band(0.2, 0.8)]),
)


def _judged(columns: GoldColumns, row: int, shape: Shape) -> tuple[float, int, bool]:
    """P of the verdict that stands, tokens, and whether the screen settled: judge by judge."""
    if not np.isnan(columns.by_rules[row]):
        return float(columns.by_rules[row]), 0, False
    screened = columns.screened
    if shape.cut_off is not None and screened is not None and screened[row] < shape.cut_off:
        return np.nan, 0, True
    tokens = 0
    if shape.band is not None:
        glance = columns.glance[shape.effort].at(np.array([row]))
        tokens += int(glance.tokens[0])
        p = float(glance.probability[0])
        if shape.band == Band() or shape.band.settles(p):
            return p, tokens, False
    reason = columns.reason[shape.effort].at(np.array([row]))
    # What glance has read is in the prefix cache.
    more = reason.tokens if shape.band is None else reason.output_tokens
    return float(reason.probability[0]), tokens + int(more[0]), False


@given(gold_columns(), shapes, st.sampled_from([0.1, 0.45, 0.5, 1.0]))
def test_outcome_is_that_of_the_judges_one_after_the_other(
    columns: GoldColumns, shape: Shape, threshold: float
) -> None:
    found = outcome(columns, shape)
    one_by_one = [_judged(columns, row, shape) for row in range(len(columns))]
    np.testing.assert_array_equal(found.probability, np.float32([p for p, _, _ in one_by_one]))
    assert found.tokens.tolist() == [tokens for _, tokens, _ in one_by_one]
    assert found.screened.tolist() == [screened for _, _, screened in one_by_one]
    flagged = [bool(np.float32(p) >= np.float32(threshold)) for p, _, _ in one_by_one]
    assert found.violates(threshold).tolist() == flagged


@settings(max_examples=30)
@given(gold_columns(), shapes, st.booleans())
def test_grid_counts_what_each_cascade_does(
    columns: GoldColumns, own: Shape, explains: bool
) -> None:
    space = Space(own, 0.5, 0.5, ["low"], 0.3, explains)
    tried = try_all(columns, space)
    assert own in tried.shapes and 0.5 in tried.thresholds
    for shape, threshold in np.argwhere(tried.fits)[:: max(1, tried.size // 50)].tolist():
        each = tried.at(shape, threshold)
        assert each == candidate(columns, each.shape, each.threshold)
        band = each.shape.band or Band()
        assert (band.below or 0) <= each.threshold <= (1 if band.above is None else band.above)
        if each.shape.cut_off is not None:
            assert each.threshold >= 0.3
    for shape in tried.shapes:
        if explains and shape != own:
            assert shape.reasons and (shape.band is None or shape.band.above is None)
    cheapest = frontier(tried, 0.5)
    assert all(a.tokens <= b.tokens for a, b in pairwise(cheapest))
    recalls = [each.found.recall or 0 for each in cheapest]
    assert recalls == sorted(set(recalls))
    reached = np.where((tried.flagged > 0) & (tried.precision >= 0.5), tried.recall, 0)
    assert (recalls[-1] if recalls else 0) == reached.max(initial=0)


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_edge_tells_two_scores_apart(one: float, other: float) -> None:
    low, high = sorted((one, other))
    if low == high:
        return
    edge = decimal_between(low, high)
    assert low < edge <= high
    assert np.float32(low) < np.float32(edge) <= np.float32(high)


@settings(max_examples=50)
@given(st.integers(0, 400), st.data())
def test_certificate_is_the_exact_one_sided_test(violations: int, data: Any) -> None:
    hits = data.draw(st.integers(0, violations))
    flagged = data.draw(st.integers(hits, hits + 100))
    found = Counts(violations, flagged, hits)
    least = bounds(found, GOAL.confidence)
    for part, whole, low in (
        (hits, violations, least.recall),
        (hits, flagged, least.precision),
    ):
        if whole:
            ours = binomtest(part, whole, alternative="greater").proportion_ci(0.95, "exact")
            assert low == pytest.approx(ours.low, abs=1e-9)
    assert passes(found, GOAL) == (least.recall >= 0.95 and least.precision >= 0.8)
    needed = recall_needed(violations, GOAL)
    assert (needed is None) is (violations < 59)
    if needed is not None:
        allowed = max(k for k in range(violations) if binom.cdf(k, violations, 0.05) <= 0.05)
        assert binom.cdf(allowed, violations, 1 - needed) == pytest.approx(0.8)


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_chance_to_pass_is_that_of_other_contents(of: int, others: int, data: Any) -> None:
    wrong = data.draw(st.integers(0, of))
    [chance] = chances(*(np.array([each]) for each in (wrong, of, others)), 0.8, 0.95)
    allowed = [k for k in range(others) if binom.cdf(k, others, 0.2) <= 0.05]
    exact = betabinom.cdf(max(allowed), others, wrong + 1, of - wrong + 1) if allowed else 0.0
    assert chance == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize(
    ("recall", "precision"), [(0.9499, 0.97), (0.99, 0.7999), (0.9499, 0.7999), (0.94, 0.79)]
)
def test_wrong_cascades_are_certified_no_more_often_than_said(
    recall: float, precision: float
) -> None:
    """Two good cascades, then one that is just wrong, then worse ones: the first 2,000 seeds."""
    steps = [(0.998, 0.99), (0.99, 0.98), (recall, precision), (recall - 0.02, precision - 0.02)]
    seeds, violations, wrong = 2_000, 300, 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        # Each violation has its luck under all cascades: what a better one misses, worse ones do.
        luck = rng.random(violations)
        found = []
        for r, p in steps:
            hits = int((luck < r).sum())
            found.append(Counts(violations, hits + int(rng.negative_binomial(hits, p)), hits))
        last = last_certified(found, GOAL)
        wrong += last is not None and last >= 2
    assert binom.sf(wrong - 1, seeds, 0.05) > 0.001


def _population(rows: int, seed: int) -> GoldColumns:
    """Glance tells rows apart less well than reason; nothing of it hangs on rows beside."""
    rng = np.random.default_rng(seed)
    violates = rng.random(rows) < 0.3

    def said(sigma: float, output: int) -> Answers:
        logit = np.where(violates, 3, -3) + rng.normal(0, sigma, rows)
        prompts = rng.integers(110, 160, rows)
        answers = 1 + rng.poisson(output, rows)
        return Answers(
            (1 / (1 + np.exp(-logit))).astype(np.float32), prompts, np.full(rows, 100), answers
        )

    none = np.full(rows, np.nan, np.float32)
    return GoldColumns(violates, none, None, {"low": said(2, 0)}, {"low": said(1, 60)})


def test_cheaper_cascade_is_chosen_and_holds_on_other_contents() -> None:
    columns = _population(42_000, 0)
    select, certify, rest = np.split(np.arange(42_000), [1_000, 2_000])
    own = Shape("low")
    found = choose(columns.at(select), columns.at(certify), Space(own), GOAL)
    assert found.chosen is not None
    assert len(found.listed) == 5
    tokens = [each.tokens for each in found.listed]
    assert tokens == sorted(tokens, reverse=True)
    assert found.chances[0] >= max(found.chances) - 0.02
    # The job's own is as safe as any here, and costs nothing to test first.
    assert (found.listed[0].shape, found.listed[0].threshold) == (own, 0.5)
    chosen = found.tested[found.chosen]
    assert found.listed[found.chosen].shape == chosen.shape
    there = candidate(columns.at(rest), chosen.shape, chosen.threshold)
    assert there.reaches(GOAL)
    assert there.tokens < 0.8 * candidate(columns.at(rest), own, 0.5).tokens


@pytest.mark.parametrize("violates", [True, False])
def test_contents_of_one_kind_certify_what_can_be_said_of_them(violates: bool) -> None:
    columns = _population(400, 1)
    alike = columns.at(columns.violates == violates)
    half = np.arange(len(alike)) < len(alike) // 2
    found = choose(alike.at(half), alike.at(~half), Space(Shape("low")), GOAL)
    assert (found.chosen is None) is not (violates and int((~half).sum()) >= 59)


# A corpus: P of glance and of reason are in each text, in twentieths.
LEVELS = (1, 4, 8, 12, 16, 19)
RULE = "follow4follow"


def _script(log: Path) -> dict[str, Any]:
    """SP0 is always written; the rest of P is that of a violation."""
    rules = [
        {
            "content": f"glance{glance:02d} reason{reason:02d}",
            "answer": '{"label": "SP0", "rationale": "So be it."}',
            "reasoning": "hm " * (60 + reason),
            "p": 1 - reason / 20,
            "glance": 1 - glance / 20,
        }
        for glance in LEVELS
        for reason in LEVELS
    ]
    return {"rules": rules, "log": str(log)}


def corpus(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 640
    violates = rng.random(rows) < 0.5
    sure = rng.random(rows)
    glance = np.where(violates, rng.choice((8, 12, 16, 19), rows), rng.choice((1, 4, 8), rows))
    reason = np.where(violates, rng.choice((16, 19), rows), rng.choice((1, 4), rows))
    texts = [
        f"text {i} glance{g:02d} reason{r:02d}"
        for i, (g, r) in enumerate(zip(glance, reason, strict=True))
    ]
    gold: list[bool | None] = violates.tolist()
    for i in np.flatnonzero(violates & (sure < 0.05)):
        texts[i] += f" {RULE}"
    texts += [texts[1], "", "nobody knows"]
    gold += [gold[1], True, None]
    (folder / "in").mkdir()
    table = pa.table({"text": texts, "is_spam": pa.array(gold)})
    pq.write_table(table.slice(0, 300), folder / "in/a.parquet")
    pq.write_table(table.slice(300), folder / "in/b.parquet")


CASCADE: list[Any] = ["rules", {"reason": {"budget": 128}}]


@pytest.fixture
def tuned_job(job: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A job over the corpus with gold, and rules before reason."""
    corpus(tmp_path)

    def write(**sections: Any) -> Path:
        known = {"gold": {"spam": "is_spam"}, "cascade": CASCADE}
        return job(_script(tmp_path / "asked.log"), **{**known, **sections})

    return write


def _policy_under(folder: Path, threshold: float, more: str = "") -> None:
    """The spam policy with another threshold, and perhaps more text."""
    shutil.copytree(ROOT / "policies/spam", folder, dirs_exist_ok=True)
    text = (folder / "policy.md").read_text()
    changed = re.sub("(?m)^threshold: .*$", f"threshold: {threshold}", text)
    assert changed != text
    (folder / "policy.md").write_text(changed + more)


def _run(checked: Checked, job: Job, made: Sequence[Cascade]) -> tuple[pa.Table, pa.Table]:
    """A job run for real, in this process: the input's rows, and what was decided."""
    vocab = vocabulary(engine_spec(job, gpus=0).vocabulary_source)
    units = [
        unit
        for shard in checked.scan.shards
        for span in spans(shard, [(0, shard.rows)], UnitSize(rows=1000))
        for _, unit in read_span(span, job, made, vocab)
    ]
    rows = pa.concat_tables([pq.read_table(shard.url) for shard in checked.scan.shards])
    return rows, judge_here(job, made, pa.concat_tables(units))


def _run_on_part(file: Path, part: str) -> tuple[np.ndarray, ...]:
    """A job run for real on the contents of a part, each once.

    Returns:
        What is known of each, whether it was flagged, and its tokens: of prompts, and of output.
    """
    checked = check(file)
    rows, judged = _run(checked, checked.job, checked.cascades)
    hashes = judged.column("content_hash").to_pylist()
    gold = rows.column("is_spam").to_pylist()
    statuses = structs(judged.column("spam")).field("status").to_pylist()
    chosen = [
        index
        for index, content_hash in enumerate(hashes)
        if statuses[index] != "empty"
        and gold[index] is not None
        and hashes.index(content_hash) == index
        and PARTS[max(PARTS.index(part_of(content_hash)), 1)] == part
    ]
    spam = structs(judged.column("spam")).take(pa.array(chosen))
    return (
        np.array([gold[index] for index in chosen]),
        spam.field("violates").fill_null(False).to_numpy(zero_copy_only=False),
        *[
            trace(spam, name).fill_null(0).to_numpy(zero_copy_only=False)
            for name in ("prompt_tokens", "output_tokens")
        ],
    )


def _record(folder: Path) -> TuneRecord:
    return TuneRecord.from_json((folder / "tune.json").read_bytes(), "tune.json")


@pytest.mark.slow
def test_tuned_cascade_run_for_real_does_what_was_computed(
    tuned_job: Callable[..., Path], tmp_path: Path, cli: Cli
) -> None:
    out, asked = tmp_path / "tuned", tmp_path / "asked.log"
    result = cli("tune", tuned_job(), "--out", out, "--effort", "low")
    assert result.returncode == 0, result.stderr
    record = _record(out)
    # One text is there twice, one is empty, and of one nobody knows.
    assert sum(part.contents for part in record.parts.values()) == 640
    assert record.unreadable == 1 and record.parts["train"].contents == 0
    assert record.chosen is not None and record.certificate is not None
    chosen = record.tested[record.chosen]
    assert chosen.cascade.below is not None and chosen.certify.tokens < record.own_tokens
    assert {file.name for file in out.iterdir()} == {
        "judged.parquet",
        "spam.png",
        "spam.svg",
        "tune.html",
        "tune.json",
    }
    assert "Certified: " in (out / "tune.html").read_text("utf-8")
    # What is printed is pasted, and run.
    pasted = yaml.safe_load(result.stdout[result.stdout.index("# policy.md") :].split("written")[0])
    assert pasted["cascade"][0] == "rules"
    folder = tmp_path / "spam"
    _policy_under(folder, chosen.cascade.threshold)
    model = {"source": "scripted:script.yaml", **pasted["model"]}
    sections = {"policies": [str(folder)], "model": model, "cascade": pasted["cascade"]}
    file = tuned_job(**sections)
    assert cli("tune", file, "--verify", out / "tune.json").returncode == 0
    violates, flagged, prompts, outputs = _run_on_part(file, "certify")
    assert len(violates) == record.parts["certify"].contents
    counted = chosen.certify
    assert (int(violates.sum()), int(flagged.sum())) == (counted.violations, counted.flagged)
    assert int((violates & flagged).sum()) == counted.hits
    prefix = len(check(file).cascades[0].last.safeguard.prompt.prefix)
    judges = np.where(prompts > prefix * 1.9, 2, prompts > 0)
    tokens = prompts / np.maximum(judges, 1) - (judges > 0) * prefix + outputs
    assert tokens.sum() / len(tokens) == pytest.approx(counted.tokens, abs=1e-9)
    assert set(judges.tolist()) == {0, 1, 2}
    # What was judged is not asked again.
    before = asked.stat().st_size
    again = cli("tune", tuned_job(), "--out", out, "--effort", "low", "--json")
    assert again.returncode == 0
    assert asked.stat().st_size == before
    assert json.loads(again.stdout) == json.loads((out / "tune.json").read_text())
    assert _record(out).looks == 1
    other = cli("tune", tuned_job(), "--out", out, "--effort", "low", "--recall", "0.9")
    assert other.returncode == 0 and _record(out).looks == 2
    assert "search number 2" in other.stderr
    # Another effort, another text: the certificate is void.
    _policy_under(folder, chosen.cascade.threshold, "\nAnd no riddles.\n")
    voided = api.voided(out / "tune.json", tuned_job(**sections))
    assert voided == ["spam: rules policy differs"] or "policy" in voided[0]
    for change, told in (
        ({"model": {**model, "effort": "high"}}, "effort was 'low', is 'high'"),
        ({"cascade": ["rules", "reason"]}, "judges were rules, glance, reason"),
    ):
        refused = cli("tune", tuned_job(**sections | change), "--verify", out / "tune.json")
        assert refused.returncode == 1 and told in refused.stderr, refused.stderr


SHAPES = [
    Shape("low"),
    Shape("high", None, Band()),
    Shape("low", None, Band(0.22)),
    Shape("low", None, Band(0.22, 0.9)),
    Shape("high", -1.0),
    Shape("low", -0.5, Band(0.1)),
]


@pytest.mark.slow
def test_each_kind_of_cascade_run_for_real_does_what_was_computed_row_by_row(
    tuned_job: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "in/a.parquet").unlink()
    table = pq.read_table(tmp_path / "in/b.parquet").slice(0, 150)
    pq.write_table(table, tmp_path / "in/b.parquet")
    _save_screen(tmp_path / "screen", table, f"people, {TRAIN_ALONE}")
    cascade = ["rules", {"screen": "screen"}, {"reason": {"budget": 128}}]
    checked = check(tuned_job(cascade=cascade))
    [made], policy = checked.cascades, checked.policies[0]
    truth = (np.arange(150), table.column("is_spam").to_numpy())
    gold = gold_rows(checked, made, checked.scan.shards, lambda shard: truth, 10_000)
    said = columns(checked.job, made, gold, panel(checked.job, policy, ["low", "high"]), None)
    screened = 0
    for shape in SHAPES:
        computed = outcome(said, shape)
        job = tuned(checked.job, shape)
        own, problems = built(job, policy)
        assert not problems
        spam = structs(_run(checked, job, [own])[1].column("spam"))
        flagged = spam.field("violates").to_pylist()
        assert flagged == computed.violates(policy.threshold).tolist()
        for name in ("prompt_tokens", "output_tokens"):
            tokens = trace(spam, name).fill_null(0).to_pylist()
            assert tokens == getattr(computed, name).tolist()
        screened += int(computed.screened.sum())
    assert screened


def _save_screen(folder: Path, table: pa.Table, source: str) -> None:
    policy = load_policy(ROOT / "policies/spam")
    known = table.filter(table.column("is_spam").is_valid())
    teacher = Teacher(policy="spam", threshold=0.5, policy_key=policy_key(policy), source=source)
    screen = calibrate_screen(
        known.column("text").combine_chunks(),
        known.column("is_spam").to_numpy(),
        teacher=teacher,
        max_miss=0.2,
    )
    save_screen(screen, folder)


@pytest.mark.slow
def test_screen_is_tuned_where_it_saw_nothing_of_the_other_parts(
    tuned_job: Callable[..., Path], tmp_path: Path, cli: Cli
) -> None:
    table = pq.read_table(tmp_path / "in")
    _save_screen(tmp_path / "screen", table, "people")
    file = tuned_job(cascade=["rules", {"screen": "screen"}, "reason"])
    refused = cli("tune", file)
    assert refused.returncode == 2 and "--train-part" in refused.stderr
    _save_screen(tmp_path / "screen", table, f"people, {TRAIN_ALONE}")
    goal = ("--recall", "0.9", "--out", tmp_path / "tuned", "--effort", "low")
    result = cli("tune", file, *goal)
    assert result.returncode == 0, result.stderr
    record = _record(tmp_path / "tuned")
    assert record.parts["train"].contents > 150
    own = record.own.cut_off
    cut_offs = {each.cut_off for each in record.frontier} - {None}
    assert own is not None and any(cut < own for cut in cut_offs)
    # A lower cut-off is what a job may say; a higher one is refused.
    for cut_off, told in ((min(cut_offs), ""), (own + 1, "cut_off")):
        screen = {"screen": {"path": "screen", "cut_off": cut_off}}
        checked = cli("check", tuned_job(cascade=[screen, "reason"]))
        assert (checked.returncode == 2) is bool(told) and told in checked.stderr


def test_what_cannot_be_tuned_is_said_with_what_to_do(
    tuned_job: Callable[..., Path], tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    out = tmp_path / "out of tune"
    out.mkdir()
    (out / "judged.parquet").write_bytes(b"PAR0")
    hate = str(ROOT / "policies/hate")
    both = {
        "policies": [str(ROOT / "policies/spam"), hate],
        "gold": {"spam": "is_spam", "hate": "is_spam"},
    }
    calls: dict[str, Callable[[], tuple[object, ...]]] = {
        "no gold": lambda: (tuned_job(gold={}),),
        "gold of two policies": lambda: (tuned_job(**both),),
        "no such policy": lambda: (tuned_job(), "--policy", "spma"),
        "no such effort": lambda: (tuned_job(), "--effort", "lo"),
        "no share": lambda: (tuned_job(), "--recall", "1"),
        "too few violations": lambda: (tuned_job(gold={"spam": "is_spam AND text LIKE '%1 %'"}),),
        "a strict goal": lambda: (tuned_job(), "--recall", "0.99"),
        "no labels": lambda: (tuned_job(), "--from", tmp_path / "nowhere"),
        "damaged answers": lambda: (tuned_job(), "--out", out),
        "no certificate": lambda: (tuned_job(), "--verify", tmp_path / "none.json"),
    }
    told = []
    for name, call in calls.items():
        result = cli("tune", *call())
        assert result.returncode == 2 and not result.stdout, name
        told.append(f"# {name}\n{plain(result.stderr, tmp_path)}")
    golden("tune-refused", "".join(told))
    assert not (tmp_path / "asked.log").exists()
