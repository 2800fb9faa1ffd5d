"""A shard's labels, counted for its marker while the label file is written."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import FLAGGED, structs, trace
from moderay.labels.counts import PolicyCounts
from moderay.labels.decisions import commonest, distribution, summary
from moderay.labels.records import LabelCounts
from moderay.labels.shard_profile import PolicyProfile


class ShardTally:
    """Counts, histograms and chosen rows of label rows, batch by batch."""

    def __init__(self, rules: Sequence[DecisionRule], run: int | None) -> None:
        """Of no rows yet.

        Args:
            rules: of the policies whose columns are counted.
            run: whose rows are counted for themselves too; None: nobody asks for these.
        """
        self._run = run
        ids = [rule.policy for rule in rules]
        self._all, self._new = _LabelTally(ids), _LabelTally(ids)
        self.profiles = {rule.policy: PolicyProfile(rule.policy, rule.threshold) for rule in rules}

    def add(self, labels: pa.Table) -> None:
        """Rows of the label file."""
        flags = labels.column(FLAGGED.name).combine_chunks()
        decisions = {name: structs(labels.column(name)) for name in self.profiles}
        self._all.add(flags, decisions)
        for profile in self.profiles.values():
            profile.add(labels)
        if self._run is None:
            return
        judged = {
            name: pc.fill_null(pc.equal(trace(rows, "run"), self._run), False)
            for name, rows in decisions.items()
        }
        self._new.add(
            flags.filter(functools.reduce(pc.or_, judged.values())),
            {name: rows.filter(judged[name]) for name, rows in decisions.items()},
        )

    @property
    def counts(self) -> LabelCounts:
        """Of all rows."""
        return self._all.counts()

    @property
    def new(self) -> LabelCounts | None:
        """Of those that the run judged."""
        return None if self._run is None else self._new.counts()


class _LabelTally:
    """Label rows, how many of them are flagged, and counts by policy."""

    def __init__(self, policies: Sequence[str]) -> None:
        self._rows = self._flagged = 0
        self._policies = {name: Counter[str]() for name in policies}

    def add(self, flagged: pa.Array, decisions: Mapping[str, pa.StructArray]) -> None:
        self._rows += len(flagged)
        self._flagged += pc.sum(flagged).as_py() or 0
        for name, rows in decisions.items():
            self._policies[name].update(summary(rows) | distribution(rows))

    def counts(self) -> LabelCounts:
        policies = {
            name: PolicyCounts.of(commonest(counts)) for name, counts in self._policies.items()
        }
        return LabelCounts(rows=self._rows, flagged=self._flagged, policies=policies)
