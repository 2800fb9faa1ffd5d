"""What an evaluation leaves in a folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from moderay.tasks.evaluate.evaluation import Evaluation
from moderay.tasks.evaluate.pictures import draw
from moderay.tasks.evaluate.records import EvalRecord

RECORD = "eval.json"
DISAGREEMENTS = "disagreements.parquet"


def write_evaluation(evaluation: Evaluation, record: EvalRecord, folder: Path) -> None:
    """Write `eval.json`, `disagreements.parquet`, and a picture of each policy with scores.

    What an earlier evaluation left there is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(evaluation.disagreements, folder / DISAGREEMENTS)
    for each in evaluation.policies:
        if each.whole.scores.rows:
            for suffix in ("png", "svg"):
                draw(each, folder / f"{each.policy.id}.{suffix}")
    # Last: whoever finds it finds the rest.
    (folder / RECORD).write_bytes(record.to_json())
