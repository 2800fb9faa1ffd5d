"""The schemas of moderay's own files: current, and true of what is written."""

import datetime
import json
import os
from typing import Any

import jsonschema
import pytest
from support.project import ROOT

from moderay.core.errors import Problem
from moderay.core.records import Record
from moderay.judges.calibration import CalibratedFigure, CalibrationCard
from moderay.judges.cards import FEATURES, BandCard, Card, Point, Teacher
from moderay.labels.counts import PolicyCounts
from moderay.labels.manifest_record import (
    HardwareRecord,
    JudgeRecord,
    JudgeReport,
    Manifest,
    ModelRecord,
    NewLabels,
    PolicyRecord,
    RateRecord,
    RunRecord,
    Selection,
)
from moderay.labels.prevalence_records import PlannedRow, PlannedStratum, PrevalencePlan
from moderay.labels.records import (
    ChosenRow,
    ChosenRows,
    LabelCounts,
    LeaseRecord,
    ShardMarker,
    WrittenFile,
)
from moderay.labels.review_records import Review
from moderay.tasks.decide.records import DecideRecord, PolicyDecided
from moderay.tasks.diff.records import (
    ContradictionRecord,
    DiffRecord,
    FigureDiff,
    FloorRecord,
    GoldDiff,
    LabelFlip,
    LeftOut,
    PolicyDiffRecord,
    PolicyRepeatRecord,
    RepeatRecord,
)
from moderay.tasks.evaluate.benchmark import missing_benchmark
from moderay.tasks.evaluate.benchmark_records import (
    BenchmarkRecord,
    CellRecord,
    PublishedRecord,
    SummaryRecord,
)
from moderay.tasks.evaluate.records import (
    AgreementRecord,
    EstimateRecord,
    EvalRecord,
    FiguresRecord,
    GoalRecord,
    PolicyEvalRecord,
)
from moderay.tasks.evaluate.records import (
    JudgeRecord as EvalJudgeRecord,
)
from moderay.tasks.explain.records import (
    DecisionPart,
    Explanation,
    GoldenSetPart,
    JudgedPart,
    LabelPart,
    OutputPart,
    RowPart,
    TracePart,
)
from moderay.tasks.export.records import ExportedPolicy, SftRecord, SideCounts
from moderay.tasks.filter.records import FilterCard, FilterRows, RuleRecord
from moderay.tasks.prevalence.estimate import estimate
from moderay.tasks.record_schemas import RECORDS, record_schemas, write_schemas
from moderay.tasks.tables.label_table import LabelTableRecord
from moderay.tasks.tune.records import (
    CascadeRecord,
    CertifyRecord,
    CountsRecord,
    TuneGoalRecord,
    TunePartRecord,
    TuneRecord,
)

COUNTS = PolicyCounts(ok=2, flagged=1, settled={"reason": 2}, labels={"SP0": 1, "SP4": 1})
SELECTION = Selection(content="text", where=None, sample=None)
ESTIMATE = EstimateRecord(value=0.5, low=0.1, high=0.9, method="exact")
FIGURES = FiguresRecord(
    rows=3,
    true_positives=1,
    false_positives=0,
    false_negatives=0,
    true_negatives=1,
    not_judged_safe=0,
    not_judged_violating=1,
    figures={"recall": ESTIMATE},
)
POLICY = PolicyRecord(
    title="Spam",
    version=1,
    threshold=0.5,
    cascade_key="0",
    cascade=(JudgeRecord(judge="reason", labels={"SP0": False, "SP4": True}),),
    promises={},
)
CALIBRATED = CalibratedFigure(
    before=0.2, before_low=0.1, before_high=0.3, after=0.1, after_low=0.0, after_high=0.2
)
COUNTED = CountsRecord(violations=100, flagged=101, hits=99, tokens=60.5)
CASCADE = CascadeRecord(
    effort="low",
    cut_off=None,
    below=0.02,
    above=None,
    glance=True,
    reason=True,
    threshold=0.5,
    select=COUNTED,
)
ROW = ChosenRow(row=4, content_hash="ab", status="ok", label="SP4", probability=0.9)
TEACHER = Teacher(policy="spam", threshold=0.5, policy_key="a", source="people")
PROMISE: dict[str, Any] = {"max_miss": 0.05, "confidence": 0.95, "misses_allowed": 1}
HALF = EstimateRecord(value=0.5, low=0.1, high=0.9, method="exact")
DAY = datetime.date(2026, 11, 26)
CONTRADICTION = ContradictionRecord(rows=1, contents=HALF, pairs=None)
REPEATED = PolicyRepeatRecord(
    judged=2,
    not_judged=1,
    never_judged=0,
    kept=1,
    contents=2,
    violates=CONTRADICTION,
    label=CONTRADICTION,
)

EVAL = EvalRecord(
    name="demo",
    model="tiny",
    policies={
        "spam": PolicyEvalRecord(
            version=1,
            threshold=0.5,
            labels=["SP0", "SP4"],
            unknown=1,
            whole=FIGURES,
            confusion=[[1, 0, 0], [0, 1, 1]],
            at_or_above={"SP4": FIGURES},
            judges={
                "reason": EvalJudgeRecord(
                    decided=2, missed=0, wrongly_flagged=0, recall_lost=ESTIMATE
                )
            },
            slices={"language": {"de": FIGURES}},
            agreement=AgreementRecord(model={"1": ESTIMATE}, people={"1-2": ESTIMATE}, alpha=None),
            goal=GoalRecord(
                goal="recall",
                floor=0.9,
                threshold=0.25,
                chosen_on=1,
                tried_on=1,
                figures={"recall": ESTIMATE},
            ),
        )
    },
    flagged=FIGURES,
    exact_right=2,
    exact_rows=3,
    score_bins=10_000,
)

PLAN = PrevalencePlan(
    id="0" * 16,
    created="2026-11-20T08:00:00+00:00",
    policy="spam",
    policy_hash="0",
    labels={"SP0": False, "SP4": True},
    threshold=0.5,
    judged=90,
    unjudged=10,
    width=None,
    expected_width=0.9,
    confidence=0.95,
    strata=(PlannedStratum(removed=True, low=0.5, high=1.0, rows=90, probability=0.7, reviews=1),),
    rows=(PlannedRow(policy="spam", content_hash="0", shard="a.parquet", row=0, stratum=0),),
)
FILES: dict[str, Record] = {
    "manifest": Manifest(
        name="demo",
        complete=True,
        cascade_key="0",
        selection=SELECTION,
        policies={"spam": POLICY},
        counts={"spam": COUNTS},
        histograms={"spam": {0: 1, 900: 1}},
        judges={"spam": {"reason": JudgeReport(settled=2, share=1.0, miss=(0.0, 0.1, 0.2))}},
        runs=(
            RunRecord(run=0, status="killed"),
            RunRecord(
                run=1,
                status="finished",
                model=ModelRecord(source="tiny"),
                hardware=HardwareRecord(cpus=2, gpus=0),
                rates={"spam": RateRecord(rows_per_s=1.0, tokens_per_s=9.0)},
                new=NewLabels(shards=1, changed=0, rows=2, flagged=1, policies={"spam": COUNTS}),
            ),
        ),
    ),
    "filter": FilterCard(
        name="demo",
        labels="demo/labels",
        complete=True,
        rule=RuleRecord(
            keep="NOT spam.violates", thresholds={"spam": 0.5}, unselected=None, verdicts=False
        ),
        shards=1,
        files=(".parquet",),
        rows=FilterRows(input=3, kept=1, removed=1, held=1),
        removed={"spam": {"SP4": 1}},
        held={"spam": {"timeout": 1}},
        missing={},
        failed={},
        gone=(),
        policies={"spam": POLICY},
        selection=SELECTION,
        run=RunRecord(run=1, status="finished", model=ModelRecord(source="tiny")),
    ),
    "eval": EVAL,
    "eval-summary": SummaryRecord(
        benchmarks=[
            BenchmarkRecord(
                name="demo",
                model="tiny",
                source="https://example.org/set",
                missing=None,
                cells=[
                    CellRecord(
                        figure="f1",
                        policy="spam",
                        at_or_above=None,
                        rows=3,
                        ours=ESTIMATE,
                        published=[
                            PublishedRecord(
                                value=0.8, model="m", source="s", comparable=True, note=""
                            )
                        ],
                    )
                ],
                evaluation=EVAL,
            ),
            missing_benchmark("gone", [Problem("job.yaml", 3, "no files")]),
        ]
    ),
    "marker": ShardMarker(
        shard="a.parquet",
        identity=("a.parquet", 9, "v"),
        source="/in/a.parquet",
        input_rows=2,
        rows=2,
        label_file=WrittenFile(size=9, version="v", digest="0" * 32),
        flagged=1,
        policies={"spam": COUNTS},
        new=LabelCounts(rows=1, flagged=0, policies={}),
        histograms={"spam": {0: 1, 900: 1}},
        chosen={"spam": ChosenRows(flagged=(ROW,))},
        judges={"spam": {"reason": "0"}},
        thresholds={"spam": 0.5},
        run=1,
    ),
    "lease": LeaseRecord(id="a", run=0, part=(3, 10), host="h", machine="m", pid=1),
    "diff": DiffRecord(
        a="labels",
        b="labels-2",
        judges_known=True,
        differences=["spam: effort was 'low', is 'high'"],
        only_thresholds=False,
        rows=3,
        policies={
            "spam": PolicyDiffRecord(
                judged=2,
                not_judged_a=1,
                not_judged_b=0,
                not_judged_both=0,
                violating_a=0,
                violating_b=1,
                to_violating=1,
                to_safe=0,
                labels=[LabelFlip(a="SP0", b="SP4", rows=1)],
                contents=2,
                p_value=1.0,
                per_million={"flipped": HALF},
                gold=GoldDiff(
                    contents=2,
                    right_a=0,
                    right_b=1,
                    p_value=1.0,
                    figures={"recall": FigureDiff(a=0.0, b=1.0, gained=HALF)},
                ),
                floor=FloorRecord(
                    repeats=5, seeds="sent", a=REPEATED, b=REPEATED, contents=2, p_value=0.5
                ),
            )
        },
        left_out=LeftOut(policies_a=["harassment"]),
    ),
    "tune": TuneRecord(
        policy="spam",
        model="tiny",
        source="is_spam in the input",
        goal=TuneGoalRecord(recall=0.95, precision=0.8, confidence=0.95),
        parts={"select": TunePartRecord(contents=400, violations=100)},
        unreadable=1,
        tried=50,
        own=CASCADE,
        own_tokens=90.5,
        frontier=[CASCADE],
        recall_needed=0.99,
        misses_allowed=1,
        tested=[
            CertifyRecord(
                cascade=CASCADE,
                chance=0.9,
                certify=COUNTED,
                recall_at_least=0.96,
                precision_at_least=0.9,
                passed=True,
            )
        ],
        chosen=0,
        certificate=POLICY,
        certify_hash="0",
        looks=1,
        created=DAY,
        moderay="0",
    ),
    "decide": DecideRecord(
        output="labels",
        shards=2,
        rewritten=1,
        rows=9,
        flagged=1,
        flagged_before=2,
        policies={
            "spam": PolicyDecided(
                threshold=0.7,
                threshold_before=0.5,
                flagged=1,
                flagged_before=2,
                by_people=1,
                by_people_before=0,
                reversed=1,
                to_flagged=0,
                to_safe=1,
                withdrawn=0,
                corrections=1,
                void=0,
                disputed=0,
            )
        },
    ),
    "label-table": LabelTableRecord(table="delta", listing="ab", table_version=3),
    "review": Review(
        id="0" * 32,
        session="0" * 16,
        reviewer="ann",
        time="2026-11-20T08:00:00.000000+00:00",
        policy="spam",
        policy_hash="0",
        content_hash="0",
        shard="a.parquet",
        row=0,
        label="SP4",
        queue="borderline",
    ),
    "prevalence-plan": PLAN,
    "prevalence": estimate(PLAN, []),
    "repeat": RepeatRecord(
        name="tweets", repeats=5, seeds="not_sent", rows=3, policies={"spam": REPEATED}
    ),
    "explanation": Explanation(
        made="2026-11-26T00:00:00+00:00",
        moderay="0",
        row=RowPart(
            shard="a.parquet",
            row=4,
            content_hash="ab",
            content="claim your prize",
            flagged=True,
            source="/in/a.parquet",
            identity=("a.parquet", 9, "v"),
            input_rows=5,
            label_file=WrittenFile(size=9, version="v", digest="0" * 32),
            published_by=0,
        ),
        verdicts={
            "spam": JudgedPart(
                decision=DecisionPart(
                    status="ok",
                    violates=True,
                    label="SP4",
                    probability=0.75,
                    scores={"SP0": 0.25, "SP4": 0.75},
                    rationale=None,
                    reasoning=None,
                    trace=TracePart(**dict.fromkeys(TracePart.model_fields)),
                ),
                threshold=0.5,
                policy=POLICY,
                labels=(LabelPart(label="SP4", title=None, violates=True),),
                judge=POLICY.cascade[-1],
                run=RunRecord(run=1, status="finished"),
                golden=GoldenSetPart(searched=False, why_not="no folder"),
            )
        },
        output=OutputPart(
            url="labels",
            name="demo",
            manifest="0",
            status="finished",
            complete=True,
            selection=SELECTION,
            cascade_key="0",
            input_shards=1,
            shards=1,
            input_rows=5,
            rows=5,
            flagged=1,
        ),
    ),
    "sft": SftRecord(
        made="2026-11-26T00:00:00+00:00",
        moderay="0",
        output="labels",
        name="demo",
        model=ModelRecord(source="tiny"),
        vocabulary="tiny",
        effort="low",
        prompt_format=1,
        shares={"train": 0.9, "validation": 0.05, "test": 0.05},
        balance="weights",
        golden="test",
        rows={"train": 1},
        left_out={"void": 1},
        policies={
            "spam": ExportedPolicy(
                title="Spam",
                version=1,
                instructions="# Spam",
                labels={"SP0": False, "SP4": True},
                golden_cases=None,
                parts={
                    "train": SideCounts(
                        violating=1, safe=0, reviews=1, golden=0, with_reasoning=0, whole=1
                    )
                },
            )
        },
    ),
    "screen-card": Card(
        teacher=TEACHER,
        rows=9,
        violations=3,
        longest=100,
        held_out_rows=4,
        held_out_violations=1,
        cut_off=-2.0,
        settled=0.5,
        curve=(Point(cut_off=-2.0, settled=0.5, missed=0.01),),
        scale=1.0,
        intercept=0.0,
        weights="0",
        features=FEATURES,
        created=DAY,
        moderay="0",
        sklearn="1",
        **PROMISE,
    ),
    "calibration-card": CalibrationCard(
        teacher=TEACHER,
        method="platt",
        numbers=((0.5, -1.0),),
        rows=90,
        violations=30,
        folds=5,
        log_loss={"raw": 0.7, "platt": 0.4, "isotonic": 0.5},
        brier=CALIBRATED,
        calibration_error=CALIBRATED,
        created=DAY,
    ),
    "band-card": BandCard(
        teacher=TEACHER,
        key="0",
        below=0.2,
        rows=9,
        violations=3,
        settled=0.5,
        created=DAY,
        **PROMISE,
    ),
}


def test_published_schemas_are_current() -> None:
    if os.environ.get("MODERAY_GOLDEN") == "write":
        write_schemas(ROOT / "jobs")
    published = {
        file.name.removesuffix(".schema.json"): json.loads(file.read_text(encoding="utf-8"))
        for file in (ROOT / "jobs").glob("*.schema.json")
        if file.name != "job.schema.json"
    }
    assert published == record_schemas()


@pytest.mark.parametrize("name", RECORDS)
def test_schema_fits_what_is_written_and_refuses_another_version(name: str) -> None:
    validator = jsonschema.Draft202012Validator(record_schemas()[name])
    content = json.loads(FILES[name].to_json())
    assert not list(validator.iter_errors(content))
    assert list(validator.iter_errors({**content, "schema_version": 99}))
    required = record_schemas()[name]["required"]
    for field in required:
        assert list(validator.iter_errors({key: content[key] for key in content if key != field}))
    assert "schema_version" in required


@pytest.mark.parametrize("name", RECORDS)
def test_file_comes_back_as_it_was_written(name: str) -> None:
    assert RECORDS[name].from_json(FILES[name].to_json(), "file") == FILES[name]
