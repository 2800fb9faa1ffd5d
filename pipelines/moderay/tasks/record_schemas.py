"""JSON Schemas of the files that moderay writes beside labels, for other programs.

`python -m moderay.tasks.record_schemas` writes them into `jobs/`, or the folder that it is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from moderay.core.records import Record, record_schema
from moderay.judges.calibration import CalibrationCard
from moderay.judges.cards import BandCard, Card
from moderay.labels.manifest_record import Manifest
from moderay.labels.prevalence_records import PrevalenceEstimate, PrevalencePlan
from moderay.labels.records import LeaseRecord, ShardMarker
from moderay.labels.review_records import Review
from moderay.tasks.decide.records import DecideRecord
from moderay.tasks.diff.records import DiffRecord, RepeatRecord
from moderay.tasks.evaluate.benchmark_records import SummaryRecord
from moderay.tasks.evaluate.records import EvalRecord
from moderay.tasks.explain.records import Explanation
from moderay.tasks.export.records import SftRecord
from moderay.tasks.filter.records import FilterCard
from moderay.tasks.tables.label_table import LabelTableRecord
from moderay.tasks.tune.records import TuneRecord

RECORDS: dict[str, type[Record]] = {
    "manifest": Manifest,
    "marker": ShardMarker,
    "lease": LeaseRecord,
    "review": Review,
    "filter": FilterCard,
    "label-table": LabelTableRecord,
    "eval": EvalRecord,
    "eval-summary": SummaryRecord,
    "decide": DecideRecord,
    "diff": DiffRecord,
    "repeat": RepeatRecord,
    "tune": TuneRecord,
    "prevalence-plan": PrevalencePlan,
    "prevalence": PrevalenceEstimate,
    "explanation": Explanation,
    "sft": SftRecord,
    "screen-card": Card,
    "band-card": BandCard,
    "calibration-card": CalibrationCard,
}


def record_schemas() -> dict[str, dict[str, Any]]:
    """The schemas, by name of their file without `.schema.json`."""
    return {name: record_schema(model) for name, model in RECORDS.items()}


def write_schemas(folder: Path) -> None:
    """Write one file for each."""
    for name, schema in record_schemas().items():
        text = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{name}.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "jobs"))
