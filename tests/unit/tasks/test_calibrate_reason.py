"""`moderay calibrate --judge reason`: P of the reasoner, read as people's word has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.label_folders import label_folder
from support.project import ROOT

import moderay
from moderay.config.policy import load_policy
from moderay.core.errors import Problems, UserError
from moderay.judges.calibration import CalibrationCard, load_calibration
from moderay.pipeline.check import Checked, check
from moderay.pipeline.manifest import policy_record
from moderay.pipeline.plan import make_plan
from moderay.tasks.evaluate.figures import eval_record
from moderay.tasks.evaluate.output import evaluate_output
from moderay.tasks.filter.request import read_labels

SPAM = load_policy(ROOT / "policies/spam")
ROWS = 400


@pytest.fixture
def labelled(job: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A labelled job whose P is sure and wrong: of what has 0.8, one in four violates."""
    random = np.random.default_rng(0)
    p = np.where(random.random(ROWS) < 0.5, 0.8, 0.1)
    truth = random.random(ROWS) < np.where(p > 0.5, 0.25, 0.02)
    texts = [f"text {number}" for number in range(ROWS)]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": texts, "bad": truth}), tmp_path / "in/a.parquet")
    file = job(gold={"spam": "bad"})
    rows = [(text, {"spam": (1 - at, at / 2, at / 2)}) for text, at in zip(texts, p, strict=True)]
    key = check(file).cascades[0].last.key
    label_folder(tmp_path / "out", [SPAM], {"a.parquet": rows}, keys={"spam": key})

    def write(**cascade: object) -> Path:
        return job(gold={"spam": "bad"}, cascade=[{"reason": cascade}])

    return write


def calibrated(labelled: Callable[..., Path], tmp_path: Path) -> tuple[CalibrationCard, Checked]:
    moderay.calibrate(labelled(), policy="spam", out=tmp_path / "read", judge="reason")
    return load_calibration(tmp_path / "read"), check(labelled(calibration=["read"]))


def test_map_is_fitted_written_and_used_in_the_right_key(
    labelled: Callable[..., Path], tmp_path: Path
) -> None:
    before = check(labelled())
    card, after = calibrated(labelled, tmp_path)
    assert card.rows == ROWS and card.teacher.source == f"bad in the input; P in {tmp_path}/out"
    [at_low, at_high] = card.calibration.of(np.array([0.1, 0.8], np.float32))
    assert at_low == pytest.approx(0.02, abs=0.03) and at_high == pytest.approx(0.25, abs=0.08)
    assert card.brier.after_high < card.brier.before_low
    assert card.calibration_error.after < 0.1 < card.calibration_error.before_low
    # The judge is asked the same, and only decisions are others.
    assert after.cascades[0].key == before.cascades[0].key
    assert after.cascades[0].rule.calibration == card.calibration
    plans = make_plan(before, replace=True), make_plan(after, replace=True)
    assert plans[0].cascade == plans[1].cascade and plans[0].decision != plans[1].decision
    record = policy_record(after.cascades[0])
    assert record.calibration is not None and record.calibration.calibration == card.calibration
    assert policy_record(before.cascades[0]).calibration is None


def test_filter_decides_as_the_manifest_says(labelled: Callable[..., Path], tmp_path: Path) -> None:
    _, after = calibrated(labelled, tmp_path)
    labels = read_labels(str(tmp_path / "out"), {})
    assert labels.rules[0].calibration is None
    manifest = labels.manifest.model_copy(
        update={"policies": {"spam": policy_record(after.cascades[0])}}
    )
    assert manifest.policies["spam"].rule("spam") == after.cascades[0].rule


def test_evaluation_tells_what_the_map_did_where_it_was_not_fitted(
    labelled: Callable[..., Path], tmp_path: Path
) -> None:
    card, after = calibrated(labelled, tmp_path)
    found = eval_record(evaluate_output(after, (), 1), "test", "scripted", None).policies["spam"]
    assert found.calibration is not None
    assert found.calibration.brier == card.brier and found.calibration.rows == ROWS
    plain = eval_record(evaluate_output(check(labelled()), (), 1), "test", "scripted", None)
    assert plain.policies["spam"].calibration is None


def test_map_of_another_judge_or_policy_is_told(
    labelled: Callable[..., Path], tmp_path: Path
) -> None:
    calibrated(labelled, tmp_path)
    with pytest.raises(Problems, match="fitted to P of another reason judge"):
        check(labelled(calibration="read", budget=7))
    with pytest.raises(Problems, match="no such card"):
        check(labelled(calibration="none"))
    with pytest.raises(Problems, match="two calibrations are for policy 'spam'"):
        check(labelled(calibration=["read", "read"]))
    card = load_calibration(tmp_path / "read")
    other = card.teacher.model_copy(update={"policy": "hate"})
    (tmp_path / "read/card.json").write_bytes(card.model_copy(update={"teacher": other}).to_json())
    with pytest.raises(Problems, match="is for policy 'hate', which this job has not"):
        check(labelled(calibration="read"))


def test_too_little_or_nothing_to_mend_writes_nothing(
    labelled: Callable[..., Path], tmp_path: Path
) -> None:
    def refused(gold: str, match: str) -> None:
        with pytest.raises(UserError, match=match):
            moderay.calibrate(
                labelled(), policy="spam", out=tmp_path / "no", judge="reason", gold=gold
            )
        assert not (tmp_path / "no").exists()

    refused("text = 'text 1'", "1 content with gold and P of reason that violate are too few")
    refused("reviews", "has no review under policy 'spam'")
