"""Rows under a policy that changes: what each is judged now, and what it was before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moderay.config.policy import GoldenCase, Policy
from moderay.core.errors import Problem, UserError
from moderay.tasks.workbench.policy import (
    FolderWatch,
    TrialPolicy,
    add_golden,
    problems_of,
    read_policy,
)
from moderay.tasks.workbench.rows import DataRows, TrialRow
from moderay.tasks.workbench.workbench import Decision, Workbench, is_missing, together


@dataclass(frozen=True)
class RowState:
    """One row as it stands.

    Attributes:
        row: The row.
        decision: The latest; None where it was not judged yet.
        before: Under the text before the last save; None where it was not judged then.
        right: The label that it should get, where that is known.
        asking: Whether the latest is of an earlier text, and another is on its way.
    """

    row: TrialRow
    decision: Decision | None
    before: Decision | None
    right: str | None
    asking: bool

    @property
    def label(self) -> str | None:
        """The label that it gets."""
        return None if self.decision is None else self.decision["label"]

    @property
    def has_flipped(self) -> bool:
        """Whether its label is another one than before the last save."""
        if self.asking or self.decision is None or self.before is None:
            return False
        return bool(self.before["label"] != self.decision["label"])

    @property
    def is_wrong(self) -> bool:
        """Whether it is judged, and not as it should be."""
        return self.decision is not None and self.right not in (None, self.label)

    @property
    def is_missing(self) -> bool:
        """Whether it has no verdict although its content has one."""
        return self.decision is not None and is_missing(self.decision)


@dataclass(frozen=True)
class GoldenAgreement:
    """How the labels agree with the golden cases among the rows.

    Attributes:
        cases: That are judged.
        right: Those of them with the right label.
        wrong_side: Those that violate and should not, or the other way round, or are not judged.
    """

    cases: int
    right: int
    wrong_side: int

    def __str__(self) -> str:
        """For people."""
        side = f", {self.wrong_side} on the wrong side" if self.wrong_side else ""
        return f"{self.right} of {self.cases} golden cases right{side}"


class Trial:
    """A policy folder, rows, and what came of them.

    Attributes:
        folder: The policy's.
        policy: The last text of it that could be read.
        problems: What is wrong with the text there is now; none where that is `policy`.
        seconds: That the last round took.
    """

    def __init__(self, bench: Workbench, folder: Path, data: DataRows, golden: bool) -> None:
        """Reads the policy.

        Args:
            bench: What judges.
            folder: The policy's.
            data: Rows that stay the same.
            golden: Whether the golden cases are rows too.

        Raises:
            Problems: The policy cannot be read.
        """
        self.folder = folder
        self._bench = bench
        self._data = data
        self._golden = golden
        self._watch = FolderWatch(folder)
        self.policy: TrialPolicy = read_policy(folder, bench.job, data.files)
        self.problems: tuple[Problem, ...] = ()
        self.seconds = 0.0
        self._decisions: dict[str, Decision] = {}
        self._before: dict[str, Decision] = {}
        self._open: set[str] = {row.key for row in self.rows}

    @property
    def rows(self) -> Sequence[TrialRow]:
        """What is judged, in order."""
        return [*self._data.rows, *(self.policy.golden_rows if self._golden else ())]

    @property
    def states(self) -> list[RowState]:
        """Each row as it stands, in order."""
        labels = self.policy.right_labels
        return [
            RowState(
                row,
                self._decisions.get(row.key),
                self._before.get(row.key),
                row.right or labels.get(row.key),
                row.key in self._open,
            )
            for row in self.rows
        ]

    @property
    def agreement(self) -> GoldenAgreement:
        """With the golden cases, as far as they are judged."""
        return agreement(self.states, self.policy.policy)

    def saved(self) -> bool:
        """Look whether somebody saved the policy; read it again if so.

        Returns:
            Whether there is something to judge or to show.
        """
        if not self._watch.changed():
            return False
        try:
            policy = read_policy(self.folder, self._bench.job, self._data.files)
        except UserError as error:
            self.problems = problems_of(error)
            return True
        self.problems = ()
        if not policy.judges_as(self.policy):
            self._before |= {
                key: decision for key, decision in self._decisions.items() if key not in self._open
            }
            self._open = set(self._decisions)
        self.policy = policy
        self._open |= {row.key for row in self.rows if row.key not in self._decisions}
        return True

    def ask_again(self, state: RowState) -> None:
        """Judge a row anew in the next round, and every row that has no verdict."""
        for each in self.states:
            if each.is_missing or each.row.key == state.row.key:
                self._bench.forget(self.policy.cascade, each.row)
                self._open.add(each.row.key)

    def add_golden(self, state: RowState, label: str) -> None:
        """Make a row a golden case.

        Raises:
            UserError: That cannot be.
        """
        if not state.row.content.text:
            raise UserError("a row without a readable content is no golden case")
        add_golden(self.folder, GoldenCase(content=state.row.content.text, label=label))

    async def judge(self, changed: Callable[[], None] = lambda: None) -> None:
        """Judge what is open under the policy as it is; cancelled, it asks nobody any more.

        Args:
            changed: Is called for each decision.

        Raises:
            ModerayError: The engine cannot be had.
        """
        began = time.monotonic()
        policy = self.policy
        rows = {row.key: row for row in self.rows if row.key in self._open}

        async def judge(row: TrialRow) -> None:
            decision = await self._bench.judge(policy.cascade, row)
            # It may come in the moment in which another text was saved.
            if self.policy is policy or self.policy.judges_as(policy):
                self._decisions[row.key] = decision
                self._open.discard(row.key)
                changed()

        await together([judge(row) for row in rows.values()])
        self._open &= {row.key for row in self.rows}
        self.seconds = time.monotonic() - began


def agreement(states: Sequence[RowState], policy: Policy) -> GoldenAgreement:
    """How rows agree with the labels that they should get."""
    judged = [
        (state.decision, state.right)
        for state in states
        if state.decision is not None and state.right is not None
    ]
    return GoldenAgreement(
        len(judged),
        sum(decision["label"] == right for decision, right in judged),
        sum(
            right not in policy.labels or decision["violates"] != policy.labels[right].violates
            for decision, right in judged
        ),
    )
