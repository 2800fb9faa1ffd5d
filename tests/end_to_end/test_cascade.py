"""The cascade: who settles what, what it costs, what the audit says of it, and what is refused."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.outputs import compared, labels, plain, verdicts_of
from support.project import ROOT

import moderay
from moderay import run
from moderay.labels.manifest_record import Manifest, RunRecord, Selection

GOOD = {"answer": '{"label": "SP0", "rationale": "Nothing."}', "reasoning": "Nothing here."}
BAD = {"answer": '{"label": "SP4", "rationale": "A prize."}', "reasoning": "A prize."}
GLANCE, REASON = 1, 2  # requests


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., tuple[Any, int]]:
    """Run a job under a copy of the policy `spam`; its outcome, and how many answers the engine
    gave.
    """
    folder, log = tmp_path / "spam", tmp_path / "answers"
    folder.mkdir()
    text = (ROOT / "policies/spam/policy.md").read_text()
    (folder / "policy.md").write_text(
        "\n".join(line for line in text.split("\n") if not line.startswith("  SP2:"))
    )
    script = {
        "default": {**GOOD, "p": 0.99, "glance": 0.98},
        "rules": [
            {"content": "prize", **BAD, "p": 0.95, "glance": 0.6},
            {"content": "subtle", **BAD, "p": 0.9, "glance": 0.01},  # glance takes these for safe
            {"content": "quoted", **GOOD, "p": 0.9, "glance": 0.5},
        ],
        "log": str(log),
    }
    (tmp_path / "script.yaml").write_text(yaml.safe_dump(script))

    def call(output: str = "out", **sections: Any) -> tuple[Any, int]:
        before = log.stat().st_size if log.exists() else 0
        outcome = run(job_file(tmp_path, output, **sections))
        return outcome, (log.stat().st_size if log.exists() else 0) - before

    return call


def job_file(tmp_path: Path, output: str = "out", **sections: Any) -> Path:
    data = {
        "input": {"path": "in", "content": "text"},
        "output": {"path": output, "reasoning": "all"},
        "policies": ["spam"],
        "model": {"source": "scripted:script.yaml"},
        "unit": {"rows": 50},
        **sections,
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(data))
    return tmp_path / "job.yaml"


def write(tmp_path: Path, texts: list[str | None], name: str = "a.parquet") -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"text": pa.array(texts, pa.string()), "n": range(len(texts))}),
        tmp_path / "in" / name,
    )


def spam(tmp_path: Path, output: str = "out", name: str = "a.parquet") -> list[dict[str, Any]]:
    actual: list[dict[str, Any]] = verdicts_of(labels(tmp_path / output)[name], "spam")
    return actual


BAND = {"glance": {"below": 0.1}}
RULES = (
    "rules: [{id: forbidden, label: SP4, any_of: [casino]}, {id: ours, label: SP0, where: n "
    "= 0}, {id: pass-short, pass: true, shorter_than: 5}]"
)


def test_each_judge_settles_what_it_is_sure_of_and_passes_on_the_rest(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, ["a prize of ours", "a CASINO", "a quiet day", "a prize", "quoted", None, "  "])
    (tmp_path / "spam/rules.yaml").write_text(RULES)
    outcome, answers = ran(cascade=["rules", BAND, {"reason": {}}])
    actual = spam(tmp_path)
    assert [v["decided_by"] for v in actual] == [
        "rules",
        "rules",
        "glance",
        "reason",
        "reason",
        None,
        None,
    ]
    assert [v["violates"] for v in actual] == [False, True, False, True, False, None, None]
    assert [v["label"] for v in actual[:3]] == ["SP0", "SP4", "SP0"] and [
        v["rationale"] for v in actual[:2]
    ] == ["ours", "forbidden"]
    assert (
        [v["probability"] for v in actual[:2]] == [0, 1]
        and actual[2]["probability"] == pytest.approx(0.02)
        and actual[2]["reasoning"] is None
    )
    assert [v["windows"] for v in actual[:3]] == [None, None, 1] and actual[3][
        "prompt_tokens"
    ] > 2 * actual[2]["prompt_tokens"] - 10
    assert answers == 3 * GLANCE + 2 * REASON
    judges = outcome.manifest.judges["spam"]
    assert {name: result.settled for name, result in judges.items()} == {
        "rules": 2,
        "glance": 1,
        "reason": 2,
    }
    assert judges["glance"].share == pytest.approx(0.2)


@pytest.mark.slow
def test_long_stretches_that_no_engine_is_asked_for_stand_in_their_place(
    ran, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    texts = [None if i % 90 == 7 else f"casino {i}" for i in range(400)]
    texts[203], texts[204] = "a prize", "quoted"
    write(tmp_path, texts)
    (tmp_path / "spam/rules.yaml").write_text(RULES)
    outcome, answers = ran(cascade=["rules", BAND, {"reason": {}}], unit={"rows": 10})
    actual = spam(tmp_path)
    assert [v["decided_by"] for v in actual[1:]] == [
        None if t is None else "rules" if "casino" in t else "reason" for t in texts[1:]
    ]
    assert [v["violates"] for v in actual[203:205]] == [True, False] and answers == 2 * (
        GLANCE + REASON
    )
    assert outcome.judged == 400 and not list((tmp_path / "out/_moderay/units").rglob("*.arrow"))
    outcome, answers = ran(
        "next", cascade=["rules", BAND, {"reason": {}}], unit={"rows": 10}, reuse=["out"]
    )
    assert answers == 0 and compared(labels(tmp_path / "next")["a.parquet"], "spam") == compared(
        labels(tmp_path / "out")["a.parquet"], "spam"
    )
    assert outcome.manifest.last_run.reused_verdicts == 2


def test_another_threshold_needs_no_engine_and_rules_stay_settled(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, ["n0", "casino", "a prize", "quiet"])
    (tmp_path / "spam/rules.yaml").write_text(RULES)
    ran(cascade=["rules", BAND, {"reason": {}}])
    policy = tmp_path / "spam/policy.md"
    policy.write_text(policy.read_text().replace("threshold: 0.5", "threshold: 0.99"))
    assert ran(cascade=["rules", BAND, {"reason": {}}])[1] == 0
    assert [(v["decided_by"], v["violates"]) for v in spam(tmp_path)] == [
        ("rules", False),
        ("rules", True),
        ("reason", False),
        ("glance", False),
    ]


def test_another_map_of_p_needs_no_engine_and_can_be_taken_back(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    # P is 0.95 where a prize is named, and 0.01 elsewhere; people say that one prize in three is.
    texts = [f"{'prize' if i % 2 else 'quiet'} {i}" for i in range(200)]
    write(tmp_path, texts)
    people = "n % 6 = 1 OR n % 50 = 0"
    asked = ran(cascade=[{"reason": {}}])[1]
    before = spam(tmp_path)
    told = moderay.calibrate(
        job_file(tmp_path, cascade=[{"reason": {}}]),
        policy="spam",
        out=tmp_path / "read",
        judge="reason",
        gold=people,
    )
    assert "on held-out contents" in told["Brier score"]
    outcome, answers = ran(cascade=[{"reason": {"calibration": "read"}}])
    read = spam(tmp_path)
    assert asked and not answers and outcome.worked
    assert outcome.manifest.policies["spam"].calibration is not None
    assert [v["scores"] for v in read] == [v["scores"] for v in before]
    assert {v["violates"] for v in before[1::2]} == {True}
    assert not any(v["violates"] for v in read)
    assert all(0.25 < v["probability"] < 0.45 for v in read[1::2])
    assert not ran(cascade=[{"reason": {"calibration": "read"}}])[0].worked
    assert ran(cascade=[{"reason": {}}])[1] == 0
    assert [(v["violates"], v["probability"]) for v in spam(tmp_path)] == [
        (v["violates"], v["probability"]) for v in before
    ]


@pytest.mark.slow
def test_an_audit_finds_what_glance_misses_and_corrects_it(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    texts = [f"{'subtle' if i % 4 == 0 else 'quiet'} {i}" for i in range(400)]
    write(tmp_path, texts)
    outcome, answers = ran(cascade=[BAND, {"reason": {}}], audit=0.25)
    actual = spam(tmp_path)
    audited = [(text, v) for text, v in zip(texts, actual, strict=True) if v["audit"] is not None]
    assert 60 <= len(audited) <= 140 and answers == 400 * GLANCE + len(audited) * REASON
    for text, verdict in audited:
        assert verdict["decided_by"] == "reason" and verdict["violates"] == ("subtle" in text)
        assert (verdict["audit"]["judge"], verdict["audit"]["violates"]) == ("glance", False)
    assert not any(v["violates"] for v in actual if v["audit"] is None)
    result, missed = (
        outcome.manifest.judges["spam"]["glance"],
        sum("subtle" in text for text, _ in audited),
    )
    assert (result.audited, result.overruled, result.missed, result.settled) == (
        len(audited),
        missed,
        missed,
        400 - len(audited),
    )
    low, estimate, high = result.missed_violations
    really = sum(
        "subtle" in text for text, v in zip(texts, actual, strict=True) if v["audit"] is None
    )
    assert low <= really <= high and estimate == pytest.approx(
        missed / len(audited) * result.settled
    )
    assert outcome.manifest.alarms == ()  # nobody promised anything
    again = ran("again", cascade=[BAND, {"reason": {}}], audit=0.25)[0]
    assert again.manifest.counts == outcome.manifest.counts


def test_the_share_that_is_audited_is_in_no_key(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"quiet {i}" for i in range(20)])
    ran(cascade=[BAND, {"reason": {}}])
    assert ran(cascade=[BAND, {"reason": {}}], audit=0.5)[1] == 0


@pytest.mark.slow
def test_equal_contents_are_asked_once_within_a_unit_and_between_units(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"prize {i % 10}" for i in range(40)])
    for shard in range(8):
        write(
            tmp_path,
            [f"prize {10 + (shard * 40 + i) % 50}" for i in range(40)],
            f"b{shard}.parquet",
        )
    outcome, answers = ran(
        unit={"rows": 20}, model={"source": "scripted:script.yaml", "engine": {"max_num_seqs": 8}}
    )
    distinct, in_flight = 60, 2 * 20
    assert distinct * REASON <= answers <= (distinct + in_flight) * REASON
    origins = Counter(
        v["origin"]
        for table in labels(tmp_path / "out").values()
        for v in verdicts_of(table, "spam")
    )
    assert origins["judged"] == answers / REASON and origins["duplicate"] == 360 - origins["judged"]
    assert outcome.manifest.counts["spam"].duplicates == origins["duplicate"]
    for table in labels(tmp_path / "out").values():
        for verdict in verdicts_of(table, "spam"):
            assert verdict["rationale"] == "A prize." and (verdict["origin"] == "judged") == (
                verdict["output_tokens"] > 0
            )


@pytest.mark.slow
def test_a_new_judge_before_the_reasoner_leaves_what_the_reasoner_said(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"quiet {i}" for i in range(30)])
    ran("before")
    write(
        tmp_path, [f"quiet {29 - i}" for i in range(30)], "moved.parquet"
    )  # contents known, but in no file of this name
    write(
        tmp_path, [f"quiet {i}" for i in range(10)] + [f"new {i}" for i in range(10)], "b.parquet"
    )
    outcome, answers = ran("after", cascade=[BAND, {"reason": {}}], reuse=["before"])
    assert answers == 10 * GLANCE
    assert {
        (v["decided_by"], v["origin"])
        for name in ("a", "moved")
        for v in spam(tmp_path, "after", f"{name}.parquet")
    } == {("reason", "reused")}
    result = Counter((v["decided_by"], v["origin"]) for v in spam(tmp_path, "after", "b.parquet"))
    assert result == {("reason", "reused"): 10, ("glance", "judged"): 10}
    entry = outcome.manifest.runs[0].reuse[0]
    assert (
        entry.output == str(tmp_path / "before")
        and entry.policies["spam"].cascade[0].judge == "reason"
        and entry.runs
    )
    assert {v["run"] for v in spam(tmp_path, "after")} == {0}
    assert compared(labels(tmp_path / "before")["a.parquet"], "spam") == compared(
        labels(tmp_path / "after")["a.parquet"], "spam"
    )


@pytest.mark.slow
def test_a_broken_file_of_a_reused_output_costs_work_and_is_named(ran, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"quiet {i}" for i in range(10)])
    write(tmp_path, [f"other {i}" for i in range(10)], "b.parquet")
    ran("before")
    (tmp_path / "before/b.parquet").write_bytes(b"nothing of the kind")
    result = cli("run", job_file(tmp_path, "after", reuse=["before"]))
    assert (
        result.returncode == 0
        and "note: earlier verdicts of b.parquet are not used: " in result.stderr
    ), result.stderr
    origins = {
        name: {v["origin"] for v in spam(tmp_path, "after", f"{name}.parquet")} for name in "ab"
    }
    assert origins == {"a": {"reused"}, "b": {"judged"}}


@pytest.mark.slow
def test_glances_are_reused_outside_todays_band_only(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"quiet {i}" for i in range(10)] + [f"prize {i}" for i in range(5)])
    ran("before", cascade=[BAND, {"reason": {}}])
    assert (
        ran("wider", cascade=[{"glance": {"below": 0.2}}, {"reason": {}}], reuse=["before"])[1] == 0
    )
    assert ran("narrower", cascade=[{"glance": {"below": 0.01}}, {"reason": {}}], reuse=["before"])[
        1
    ] == 10 * (GLANCE + REASON)


@pytest.mark.slow
def test_one_more_policy_asks_for_itself_alone(ran, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"prize {i}" for i in range(25)])
    ran("before")
    outcome, answers = ran(
        "after", policies=["spam", str(ROOT / "policies/harassment")], reuse=["before"]
    )
    assert answers == 25 * REASON and outcome.manifest.counts["spam"].reused == 25


@pytest.mark.slow
def test_plan_tells_what_the_run_then_does(ran, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "spam/rules.yaml").write_text(RULES)
    texts = [f"{('quiet', 'prize', 'casino')[i % 3]} {i % 60}" for i in range(120)]
    write(tmp_path, texts[:60], "a.parquet")
    ran("before")
    write(tmp_path, texts, "a.parquet")
    sections = {"cascade": ["rules", BAND, {"reason": {}}], "reuse": ["before"]}
    result = cli("plan", job_file(tmp_path, "after", **sections)).stdout
    assert "rows" in result and "distinct contents  60" in " ".join(result.split()).replace(
        "distinct contents ", "distinct contents  "
    )
    assert "reused 120" in result and "requests 0" in " ".join(result.split()), result
    sections = {
        "cascade": ["rules", {"reason": {}}],
        "unit": {"rows": 200},
    }  # one unit: no duplicates in flight
    result = cli("plan", job_file(tmp_path, "fresh", **sections), "--rate", "1000").stdout
    counted = " ".join(result.split())
    _, answers = ran("fresh", **sections)
    assert f"requests {answers}" in counted and "GPU time" in counted and "rules 41" in counted, (
        result
    )


def test_a_wrong_cascade_is_refused_all_at_once(ran, tmp_path: Path, cli, golden) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, ["a prize"])
    wrong = (
        [BAND],
        [{"reason": {}}, "rules"],
        ["rules"],
        [{"scren": "x"}],
        ["rules", "x"],
        [BAND, BAND, "reason"],
        ["glance", "reason"],
    )
    result = [cli("check", job_file(tmp_path, cascade=cascade)).stderr for cascade in wrong]
    (tmp_path / "spam/rules.yaml").write_text(RULES.replace("n = 0", "m = 0"))
    (tmp_path / "stopped/_moderay").mkdir(parents=True)
    stopped = Manifest(
        name="stopped",
        complete=False,
        cascade_key="",
        selection=Selection(content="text", where=None, sample=None),
        policies={},
        runs=(RunRecord(run=0, status="stopped"),),
    )
    (tmp_path / "stopped/_moderay/manifest-1.json").write_bytes(stopped.to_json())
    cascade = [
        "rules",
        {"screen": "screens/none"},
        {"glance": {"below": 0.7, "above": 0.2}},
        {"reason": {}},
    ]
    result.append(
        cli(
            "check",
            job_file(
                tmp_path, cascade=cascade, reuse=["nowhere", "stopped", "out"], limits={"stal_s": 1}
            ),
        ).stderr
    )
    golden("cascade-wrong", plain("".join(result), tmp_path))


def screened(tmp_path: Path, seed: int, rows: int = 3000) -> list[str]:
    """Texts of which a tenth is spam, by their words."""
    rng = np.random.default_rng(seed)
    safe = (
        "the quiet river runs past old stone houses where children read books and bake bread"
    ).split()
    bad = "win free prize cash click link now urgent claim bonus".split()
    return [
        " ".join(
            rng.choice(
                [*safe, *(["prize", *bad] if rng.random() < 0.5 else ["prize"])]
                if i % 10 == 0
                else safe,
                8,
            )
        )
        + (" prize" if i % 10 == 0 else "")
        + f" {i}"
        for i in range(rows)
    ]


@pytest.mark.slow
def test_a_screen_keeps_its_promise_and_a_lying_one_is_caught(ran, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, screened(tmp_path, 1))
    ran("before")
    job, screen = job_file(tmp_path, "before"), tmp_path / "screens/spam"
    made = cli("calibrate", job, "--policy", "spam", "--from", tmp_path / "before", "--out", screen)
    assert (
        made.returncode == 0
        and "misses at most 0.05 of violations, with confidence 0.95" in made.stdout
    ), made.stderr
    write(tmp_path, screened(tmp_path, 2))
    cascade = [{"screen": "screens/spam"}, {"reason": {}}]
    outcome, answers = ran("after", cascade=cascade, audit=0.2)
    result = outcome.manifest.judges["spam"]["screen"]
    assert result.share > 0.5 and not result.alarm and answers < 0.5 * 3000 * REASON
    settled = [v for v in spam(tmp_path, "after") if v["decided_by"] == "screen"]
    assert {(v["violates"], v["label"], v["probability"]) for v in settled} == {
        (False, "SP0", None)
    }

    card = json.loads((screen / "card.json").read_text())
    (screen / "card.json").write_text(
        json.dumps(card | {"cut_off": 100.0})
    )  # it would settle everything
    result = cli("run", job_file(tmp_path, "lying", cascade=cascade, audit=0.2), "--strict")
    assert result.returncode == 1 and "ALARM spam: screen misses at least" in result.stderr, (
        result.stderr
    )


@pytest.mark.slow
def test_a_screen_for_another_text_model_or_threshold_is_refused_unless_forced(
    ran, tmp_path: Path, cli, golden
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, screened(tmp_path, 1))
    ran("before")
    cli(
        "calibrate",
        job_file(tmp_path, "before"),
        "--policy",
        "spam",
        "--from",
        tmp_path / "before",
        "--out",
        tmp_path / "screens/spam",
    )
    cascade, result = [{"screen": "screens/spam"}, {"reason": {}}], []
    result.append(
        cli("check", job_file(tmp_path, cascade=[cascade[0], {"reason": {"budget": 7}}])).stderr
    )
    policy = tmp_path / "spam/policy.md"
    policy.write_text(policy.read_text().replace("threshold: 0.5", "threshold: 0.4"))
    result.append(cli("check", job_file(tmp_path, cascade=cascade)).stderr)
    policy.write_text(policy.read_text().replace("threshold: 0.4", "threshold: 0.5") + "\nMore.\n")
    result.append(cli("check", job_file(tmp_path, cascade=cascade)).stderr)
    golden("screen-refused", plain("".join(result), tmp_path))
    forced = [{"screen": {"path": "screens/spam", "force": True}}, {"reason": {}}]
    assert cli("check", job_file(tmp_path, cascade=forced)).returncode == 0


def test_calibrate_settles_next_to_nothing_on_shuffled_labels_and_says_how_many_labels_miss(
    ran, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    texts = screened(tmp_path, 1)
    shuffled = np.random.default_rng(0).permutation([i % 10 == 0 for i in range(len(texts))])
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table(
            {
                "text": texts,
                "truth": shuffled,
                "few": [None if i % 2 else i < 400 and i % 10 == 0 for i in range(len(texts))],
            }
        ),
        tmp_path / "in/a.parquet",
    )
    job = job_file(tmp_path)
    result = cli(
        "calibrate", job, "--policy", "spam", "--gold", "truth", "--out", tmp_path / "screens/no"
    )
    assert (
        result.returncode == 0
        and json.loads((tmp_path / "screens/no/card.json").read_text())["settled"] < 0.15
    ), result.stderr
    result = cli(
        "calibrate", job, "--policy", "spam", "--gold", "few", "--out", tmp_path / "screens/few"
    )
    assert (
        result.returncode == 2
        and "40 distinct contents that violate are too few: 79 are needed" in result.stderr
    )
    assert "label 39 more" in result.stderr and not (tmp_path / "screens/few").exists()


@pytest.mark.slow
def test_a_band_for_glance_is_calibrated_from_a_sample_judged_both_ways(
    ran, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path, [f"{('prize', 'quiet', 'quiet', 'quoted')[i % 4]} {i}" for i in range(400)])
    ran("before")
    result = cli(
        "calibrate",
        job_file(tmp_path, "before"),
        "--policy",
        "spam",
        "--judge",
        "glance",
        "--from",
        tmp_path / "before",
        "--out",
        tmp_path / "bands/spam",
    )
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / "bands/spam/card.json").read_text())
    assert (
        card["below"] == 0.5 and card["violations"] == 100 and card["settled"] == pytest.approx(0.5)
    )
    outcome, answers = ran("after", cascade=[{"glance": "bands/spam"}, {"reason": {}}])
    other = job_file(
        tmp_path,
        "other",
        cascade=[{"glance": "bands/spam"}, {"reason": {}}],
        model={"source": "scripted:script.yaml", "effort": "high"},
    )
    refused = cli("check", other)
    assert (
        refused.returncode == 2
        and "was calibrated for another model, effort or windows" in refused.stderr
    ), refused.stderr
    assert answers == 400 * GLANCE + 200 * REASON
    assert outcome.manifest.policies["spam"].promises == {"glance": 0.05}
