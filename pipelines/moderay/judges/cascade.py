"""The cascade: a policy's judges in order of cost, and what of them can change a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import pyarrow as pa

from moderay.config.policy import Policy
from moderay.core.decision_rule import DecisionRule
from moderay.core.hashing import digest
from moderay.core.hashing import number as number_of
from moderay.core.verdicts import Verdict
from moderay.engines.harmony.prompt import instructions
from moderay.engines.host import EngineHost
from moderay.judges.calibration import CalibrationCard
from moderay.judges.glance import Band, Glance
from moderay.judges.reason import Reason
from moderay.judges.rules import Rules
from moderay.judges.safeguard import Safeguard
from moderay.judges.screen import Screen


class ColumnJudge(Protocol):
    """Judges on the CPU, a column of contents at a time."""

    @property
    def name(self) -> str:
        """As a step of the job's cascade is called."""
        ...

    @property
    def key(self) -> str:
        """Hash of everything that can change its verdicts."""
        ...

    def identity(self) -> Mapping[str, object]:
        """What the manifest says of it."""
        ...

    def settle(self, texts: pa.Array, table: pa.Table) -> pa.StructArray:
        """Settle what it is sure of.

        Args:
            texts: large_string; the contents as a model reads them.
            table: The input's columns, row for row.

        Returns:
            Structs of `verdicts.VERDICT`, null where it passes on.
        """
        ...


class EngineJudge(Protocol):
    """Judges by asking an engine, a content at a time."""

    @property
    def name(self) -> str:
        """As a step of the job's cascade is called."""
        ...

    @property
    def key(self) -> str:
        """Hash of everything that can change its verdicts."""
        ...

    @property
    def safeguard(self) -> Safeguard:
        """How the model is asked about the policy."""
        ...

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with its answer."""
        ...

    def identity(self) -> Mapping[str, object]:
        """What the manifest says of it."""
        ...

    def settles(self, verdict: Verdict) -> bool:
        """Whether this verdict of its own stands."""
        ...

    def repeated(self, repeat: int) -> EngineJudge:
        """The same judge, which draws anew what it draws; 0 is as a run does."""
        ...

    async def judge(self, host: EngineHost, ids: Sequence[int], row: str) -> Verdict:
        """The verdict on a content as token ids; `row` is its hash."""
        ...


@dataclass(frozen=True)
class Cascade:
    """One policy's judges; picklable.

    Attributes:
        policy: The policy.
        on_columns: Judges on the CPU, the cheapest first.
        on_engine: Judges on an engine, the cheapest first; at least one.
        audit: Share, 0 to 1, of what all but the last settle that the last judges too.
        calibration: How P of reason is read when it is decided. In no key: verdicts do not depend
            on it.
    """

    policy: Policy
    on_columns: tuple[ColumnJudge, ...]
    on_engine: tuple[EngineJudge, ...]
    audit: float = 0.0
    calibration: CalibrationCard | None = None

    @property
    def rule(self) -> DecisionRule:
        """How its verdicts are decided."""
        card = self.calibration
        return replace(self.policy.rule, calibration=None if card is None else card.calibration)

    @property
    def judges(self) -> tuple[ColumnJudge | EngineJudge, ...]:
        """All of them, the cheapest first."""
        return (*self.on_columns, *self.on_engine)

    @property
    def rules(self) -> tuple[Rules, ...]:
        """Those of its judges that are rules."""
        return tuple(judge for judge in self.on_columns if isinstance(judge, Rules))

    @property
    def columns(self) -> tuple[str, ...]:
        """The input's columns that its rules read."""
        return tuple(name for rules in self.rules for name in rules.columns)

    @property
    def last(self) -> EngineJudge:
        """The judge that settles whatever reaches it, and audits the others."""
        return self.on_engine[-1]

    @cached_property
    def keys(self) -> dict[str, str]:
        """Judge keys, by the judge's name."""
        return {judge.name: judge.key for judge in self.judges}

    @property
    def bands(self) -> dict[str, Band]:
        """By judge whose verdicts stand outside a band of P only."""
        return {judge.name: judge.band for judge in self.on_engine if isinstance(judge, Glance)}

    @property
    def key(self) -> str:
        """Hash of everything that can change a verdict."""
        return digest(
            [
                [[name, key] for name, key in self.keys.items()],
                {name: [band.below, band.above] for name, band in self.bands.items()},
            ]
        )

    def identity(self) -> list[dict[str, object]]:
        """What the manifest says of it, judge by judge: all that can change a verdict."""
        columns: list[dict[str, object]] = [
            {"judge": judge.name, "key": judge.key, **judge.identity()} for judge in self.on_columns
        ]
        bands = {
            name: {"below": band.below, "above": band.above} for name, band in self.bands.items()
        }
        return [
            *columns,
            *[{**judge.identity(), **bands.get(judge.name, {})} for judge in self.on_engine],
        ]

    def repeated(self, repeat: int) -> Cascade:
        """The same judges under the same keys, which draw anew what they draw; 0 is as a run."""
        return replace(self, on_engine=tuple(judge.repeated(repeat) for judge in self.on_engine))

    @property
    def explains_apart(self) -> bool:
        """Whether the last judge asks for a label without its rationale."""
        return isinstance(self.last, Reason) and self.last.explains_apart

    @property
    def promises(self) -> dict[str, float]:
        """By judge that was calibrated: the share of violations that it may miss."""
        return {
            judge.name: judge.card.max_miss
            for judge in self.judges
            if isinstance(judge, Screen | Glance) and judge.card is not None
        }

    @property
    def estimated(self) -> tuple[str, ...]:
        """The judges of `promises` whose promise is an estimate: cross-fitted screens."""
        return tuple(
            judge.name
            for judge in self.judges
            if isinstance(judge, Screen) and judge.card.promise == "estimated"
        )

    def reusable(self, judges: Mapping[str, str]) -> dict[str, Band | None]:
        """Whose earlier verdicts stand here too.

        Never those of rules: they may hang on other columns than the content, and cost nothing.

        Args:
            judges: The keys under which the verdicts were made, by judge.

        Returns:
            By judge, the band of P outside which they stand; None where they all do.
        """
        return {
            name: self.bands.get(name)
            for name, key in self.keys.items()
            if name != "rules" and judges.get(name) == key
        }

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt of any judge, with its answer."""
        return max(judge.max_model_len for judge in self.on_engine)

    def audited(self, content_hash: str) -> bool:
        """Whether a content that an earlier judge settled is judged by the last one too.

        Chosen by hash: the same ones each time.
        """
        return (
            self.audit > 0
            and number_of(f"audit:{self.policy.id}:{content_hash}") < self.audit * 2**63
        )


def policy_key(policy: Policy) -> str:
    """Hash of what a policy asks for, the model apart."""
    return digest(
        [instructions(policy), {name: label.violates for name, label in policy.labels.items()}]
    )
