"""Counts of label rows by policy: as markers and manifests hold them, and how they add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from moderay.core.records import RecordPart
from moderay.core.verdicts import RETRYABLE, Status
from moderay.labels.decisions import MOST_REASONS


class PolicyCounts(RecordPart):
    """Rows of one policy, counted. Those by status add up to all rows."""

    ok: int = 0
    """Rows with a verdict."""
    empty: int = 0
    """Rows without content."""
    invalid: int = 0
    """Rows whose content is of no form that can be judged."""
    too_long: int = 0
    """Rows of more windows than the job allows."""
    unparsed: int = 0
    """Rows whose answer is of no valid form."""
    timeout: int = 0
    """Rows that the engine did not answer in time."""
    engine_error: int = 0
    """Rows on which the engine failed."""
    withdrawn: int = 0
    """Rows that a person settled before any judge was asked, and whose answer no longer stands."""
    flagged: int = 0
    """Rows that violate."""
    forced: int = 0
    """Rows whose verdict was asked for, since the reasoning or the answer did not end in one."""
    unexplained: int = 0
    """Rows that `reason` flagged and for which no rationale was asked."""
    duplicates: int = 0
    """Rows that took the verdict of an equal content in the same run."""
    reused: int = 0
    """Rows that took the verdict of an earlier run."""
    prompt_tokens: int = 0
    """Tokens of prompts."""
    output_tokens: int = 0
    """Tokens of reasoning and answers."""
    settled: dict[str, int] = {}
    """Rows by the judge that decided them; `human` are those that people decided."""
    corrected: dict[str, int] = {}
    """Rows that people decided and a judge before them, by that judge."""
    reversed: dict[str, int] = {}
    """Of those, where the judge said the other side."""
    audited: dict[str, int] = {}
    """Distinct contents that a judge settled and the last one judged too, by that judge."""
    overruled: dict[str, int] = {}
    """Of those, where the last judge came to another result."""
    missed: dict[str, int] = {}
    """Of those, violations that the judge took for safe."""
    labels: dict[str, int] = {}
    """Rows by label."""
    bins: dict[int, int] = {}
    """Rows by bin of P(violates) of unequal width, as a trend compares them; see `histograms` of
    the marker for equal ones."""
    reasons: dict[str, int] = {}
    """Failed rows by reason, its numbers left out; the most frequent ones."""

    @property
    def failed(self) -> int:
        """Rows without a verdict that another attempt may judge."""
        return sum(self.by_status(status) for status in RETRYABLE)

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(map(self.by_status, Status))

    def by_status(self, status: Status) -> int:
        """Rows with this status."""
        count: int = getattr(self, status.value)
        return count

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> PolicyCounts:
        """From the flat counts of `decisions.summary` and `decisions.distribution`.

        Args:
            counts: by name, or by kind and name with a dot between them.
        """
        numbers: dict[str, int] = {}
        tables: dict[str, dict[str, int]] = {}
        for name, count in counts.items():
            kind, dot, key = name.partition(".")
            if dot:
                tables.setdefault(_TABLES[kind], {})[key] = count
            else:
                numbers[name] = count
        return cls.model_validate({**numbers, **tables})


# Fields that hold a table, by the kind of a flat count's name.
_TABLES = {
    "settled": "settled",
    "corrected": "corrected",
    "reversed": "reversed",
    "audited": "audited",
    "overruled": "overruled",
    "missed": "missed",
    "label": "labels",
    "p": "bins",
    "reason": "reasons",
}
_NUMBERS = tuple(name for name in PolicyCounts.model_fields if name not in _TABLES.values())


class CountsTotal:
    """A sum of `PolicyCounts`: there may be one for each of many shards."""

    def __init__(self) -> None:
        """Of nothing yet."""
        self._numbers = dict.fromkeys(_NUMBERS, 0)
        self._tables: dict[str, dict[str | int, int]] = {name: {} for name in _TABLES.values()}

    def add(self, counts: PolicyCounts) -> None:
        """Count these rows too."""
        # Not `Counter.update`, which costs more than all the rest where tables are small.
        values, numbers = vars(counts), self._numbers
        for name in _NUMBERS:
            if values[name]:
                numbers[name] += values[name]
        for name, table in self._tables.items():
            for key, count in values[name].items():
                table[key] = table.get(key, 0) + count

    def counts(self) -> PolicyCounts:
        """The sum so far, with the most frequent reasons only: there may be as many as rows."""
        tables = {
            **self._tables,
            "reasons": dict(Counter(self._tables["reasons"]).most_common(MOST_REASONS)),
        }
        return PolicyCounts.model_validate({**self._numbers, **tables})
