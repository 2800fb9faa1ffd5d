"""Policies on their own golden sets, judged here by one engine, without a job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.config.job import Model
from moderay.config.policy import GoldenCase, Policy
from moderay.core.errors import Problem, Problems
from moderay.core.verdicts import decision_type
from moderay.corpus.golden import golden_content
from moderay.tasks.embedded_job import embedded_job
from moderay.tasks.evaluate.disagreements import SCHEMA, Worst, wrong_record
from moderay.tasks.evaluate.evaluation import Evaluation, PolicyEvaluation
from moderay.tasks.evaluate.judged import JudgedRows, judged_rows
from moderay.tasks.evaluate.slices import NOTHING, Slices, length_bands
from moderay.tasks.evaluate.tally import tally
from moderay.tasks.gold import GoldAnswers
from moderay.tasks.workbench.policy import GOLDEN, TrialPolicy, read_policy
from moderay.tasks.workbench.workbench import Decision, Workbench, opened, together

# What a golden set's figures are given by.
SLICES = ("boundary", "language", "source", "length")


@dataclass(frozen=True)
class JudgedGolden:
    """A policy's golden set, judged.

    Attributes:
        policy: The policy.
        cases: Its cases.
        decisions: One for each.
    """

    policy: Policy
    cases: Sequence[GoldenCase]
    decisions: Sequence[Decision]

    @property
    def rows(self) -> JudgedRows:
        """The cases beside their decisions."""
        policy = self.policy
        labels = np.array([policy.label_names.index(case.label) for case in self.cases], np.int16)
        hashes = pa.array([golden_content(case).hash for case in self.cases], pa.string())
        decisions = pa.array(self.decisions, decision_type(policy.label_names))
        gold = np.array(policy.violating, np.int8)[labels]
        return judged_rows(decisions, hashes, policy.label_names, GoldAnswers(gold, labels))

    @property
    def columns(self) -> pa.Table:
        """What slices are by, a row for each case."""
        lengths = np.array([len(golden_content(case).text) for case in self.cases])
        boundary = ["at the boundary" if case.boundary else "clear" for case in self.cases]
        return pa.table(
            {
                "boundary": boundary,
                "language": [case.language or NOTHING for case in self.cases],
                "source": [case.source or NOTHING for case in self.cases],
                "length": length_bands(lengths),
            }
        )


def judge_golden(folders: Sequence[Path], model: Model) -> list[JudgedGolden]:
    """Judge the golden sets of policies: by their rules, where they have any, and the model.

    Args:
        folders: Of the policies.
        model: Who judges.

    Raises:
        Problems: A policy cannot be read, or has no golden set.
        ModerayError: The engine cannot be had.
    """
    job, _ = embedded_job("content", list(map(str, folders)), model, {}, "eval")
    policies: list[TrialPolicy] = []
    problems: list[Problem] = []
    for folder in folders:
        try:
            policies.append(read_policy(folder, job))
        except Problems as error:
            problems += error.problems
        else:
            if not policies[-1].golden:
                hint = "write cases, or `moderay try` and `a` to add them"
                problems.append(Problem(str(folder / GOLDEN), None, "no golden case", hint))
    if problems:
        raise Problems(problems)

    async def judge() -> list[JudgedGolden]:
        async with opened(job) as bench:
            bench.expect([policy.cascade for policy in policies])
            return [await _judge(bench, policy) for policy in policies]

    return asyncio.run(judge())


async def _judge(bench: Workbench, policy: TrialPolicy) -> JudgedGolden:
    decisions = await together([bench.judge(policy.cascade, row) for row in policy.golden_rows])
    return JudgedGolden(policy.policy, policy.golden, decisions)


def evaluate_golden(sets: Sequence[JudgedGolden], disagreements: int) -> Evaluation:
    """Compare golden sets with what was judged of them.

    Args:
        sets: One for each policy.
        disagreements: That are kept of each, the worst.
    """
    found = [_evaluated(each) for each in sets]
    worst = [record for each in sets for record in _worst(each, disagreements)]
    return Evaluation(
        tuple(found),
        # Each case is judged under one policy.
        (0, 0),
        np.zeros((2, 3), np.int64),
        pa.Table.from_pylist(worst, schema=SCHEMA),
    )


def _evaluated(golden: JudgedGolden) -> PolicyEvaluation:
    labels = len(golden.policy.labels)
    rows = golden.rows
    slices = Slices(golden.policy, SLICES)
    slices.add(rows, golden.columns)
    return PolicyEvaluation(golden.policy, tally(rows, labels), slices.tallies)


def _worst(golden: JudgedGolden, most: int) -> list[dict[str, Any]]:
    worst = Worst(most)
    worst.add(GOLDEN, np.arange(1, len(golden.cases) + 1), golden.rows)
    texts = [golden_content(case).text for case in golden.cases]
    return [
        wrong_record(golden.policy, row, golden.decisions[row.row - 1], texts[row.row - 1])
        for row in worst.rows
    ]
