"""What an evaluation leaves in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from moderay.tasks.evaluate.benchmark_records import SummaryRecord
from moderay.tasks.evaluate.evaluation import Evaluation
from moderay.tasks.evaluate.page import evaluation_page
from moderay.tasks.evaluate.pictures import draw
from moderay.tasks.evaluate.records import EvalRecord

RECORD = "eval.json"
PAGE = "eval.html"
SUMMARY = "summary.json"
DISAGREEMENTS = "disagreements.parquet"


def write_evaluation(evaluation: Evaluation, record: EvalRecord, folder: Path) -> None:
    """Write `eval.json`, `eval.html`, `disagreements.parquet`, and pictures of scores.

    What an earlier evaluation left there is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(evaluation.disagreements, folder / DISAGREEMENTS)
    for each in evaluation.policies:
        if each.whole.scores.rows:
            for suffix in ("png", "svg"):
                draw(each, folder / f"{each.policy.id}.{suffix}")
    (folder / PAGE).write_text(evaluation_page(evaluation, record), "utf-8")
    # Last: whoever finds it finds the rest.
    (folder / RECORD).write_bytes(record.to_json())


def write_summary(
    evaluated: Mapping[str, tuple[Evaluation, EvalRecord]], summary: SummaryRecord, folder: Path
) -> None:
    """Write `summary.json`, and a folder for each job with what `write_evaluation` leaves.

    Args:
        evaluated: By name of the job.
        summary: Of all of them.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in evaluated.items():
        # A name may hold what a path is made of.
        write_evaluation(*each, folder / quote(name, safe="").replace(".", "%2E"))
    (folder / SUMMARY).write_bytes(summary.to_json())
