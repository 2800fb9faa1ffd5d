"""Each judge asked once about each content, on one engine; what was asked once is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from moderay.config.job import Effort, GlanceArgs, Job, ReasonArgs, Step
from moderay.config.policy import Policy
from moderay.core.errors import UserError, first_line
from moderay.core.verdicts import RETRYABLE, trace, valid
from moderay.corpus.content import Content
from moderay.engines.from_job import engine_spec
from moderay.judges.build import cascades
from moderay.judges.cascade import Cascade
from moderay.judges.screen import Screen
from moderay.labels.decisions import decide
from moderay.tasks.tune.columns import ANSWERS, Answers, GoldColumns, answers
from moderay.tasks.tune.gold_rows import GoldRows
from moderay.tasks.workbench.workbench import Workbench, opened, together

JUDGED = "judged.parquet"
# Contents that go to the engine as one message.
UNIT = 512


@dataclass(frozen=True)
class Panel:
    """The judges on an engine that are asked.

    Attributes:
        glance: By effort, a cascade of glance alone.
        reason: By effort, a cascade of reason alone.
    """

    glance: Mapping[Effort, Cascade]
    reason: Mapping[Effort, Cascade]

    @property
    def all(self) -> list[Cascade]:
        """In the order in which they are asked: the cheap ones first."""
        return [*self.glance.values(), *self.reason.values()]


def panel(job: Job, policy: Policy, efforts: Sequence[Effort]) -> Panel:
    """The judges of a job's only policy at several efforts."""
    reason = next((step.reason for step in job.cascade if step.reason is not None), ReasonArgs())
    return Panel(
        {effort: _alone(job, policy, effort, Step(glance=GlanceArgs())) for effort in efforts},
        {effort: _alone(job, policy, effort, Step(reason=reason)) for effort in efforts},
    )


def _alone(job: Job, policy: Policy, effort: Effort, step: Step) -> Cascade:
    alone = with_cascade(job, effort, [step])
    [cascade], _ = cascades(alone, [policy], engine_spec(alone, gpus=0))
    return cascade


def with_cascade(job: Job, effort: Effort, steps: Sequence[Step]) -> Job:
    """The job with another cascade."""
    model = job.model.model_copy(update={"effort": effort})
    return job.model_copy(update={"model": model, "cascade": list(steps)})


def columns(
    job: Job, cascade: Cascade, gold: GoldRows, judges: Panel, folder: Path | None
) -> GoldColumns:
    """What every judge says of contents.

    Args:
        job: The job, with this policy alone.
        cascade: Its cascade for the policy, for rules and a screen.
        gold: The contents.
        judges: Those on an engine.
        folder: Where answers are kept, and taken from; None: nowhere.

    Raises:
        ModerayError: The engine cannot be had.
    """
    by_rules = _by_rules(cascade, gold)
    asked = np.flatnonzero(np.isnan(by_rules))
    said = _said(job, judges, gold, asked, folder)
    return GoldColumns(
        gold.violates,
        by_rules,
        _screened(cascade, gold),
        {
            effort: _spread(said, each, asked, len(by_rules))
            for effort, each in judges.glance.items()
        },
        {
            effort: _spread(said, each, asked, len(by_rules))
            for effort, each in judges.reason.items()
        },
    )


def _texts(gold: GoldRows) -> pa.Array:
    return pa.array([row.content.text for row in gold.rows], pa.large_string())


def _by_rules(cascade: Cascade, gold: GoldRows) -> np.ndarray:
    """float32: P(violates) of what rules settle, NaN elsewhere."""
    probability = np.full(len(gold.rows), np.nan, np.float32)
    if not cascade.rules or not gold.rows:
        return probability
    table = pa.concat_tables(
        [row.columns(cascade.columns) for row in gold.rows], promote_options="permissive"
    )
    texts = _texts(gold)
    for rules in cascade.rules:
        verdicts = rules.settle(texts, table)
        settled = decide(verdicts, cascade.policy.rule)
        said = settled.field("probability").to_numpy(zero_copy_only=False)
        is_new = np.isnan(probability) & valid(verdicts)
        probability = np.where(is_new, said, probability).astype(np.float32)
    return probability


def _screened(cascade: Cascade, gold: GoldRows) -> np.ndarray | None:
    for judge in cascade.on_columns:
        if isinstance(judge, Screen):
            return judge.promised_scores(_texts(gold))
    return None


def _spread(said: Mapping[str, pa.Table], judge: Cascade, asked: np.ndarray, rows: int) -> Answers:
    """A judge's answers on all contents; those that it was not asked about cost nothing."""
    prefix = len(judge.last.safeguard.prompt.prefix)
    known = answers(said[judge.last.key], prefix)
    numbers = np.zeros((3, rows), np.int64)
    numbers[:, asked] = [known.prompt_tokens, known.cached_tokens, known.output_tokens]
    probability = np.full(rows, np.nan, np.float32)
    probability[asked] = known.probability
    return Answers(probability, *numbers)


def _said(
    job: Job, judges: Panel, gold: GoldRows, asked: np.ndarray, folder: Path | None
) -> dict[str, pa.Table]:
    """By judge key, rows of `ANSWERS`, one for each content that is asked about."""
    kept = _kept(folder)
    hashes = pa.array([gold.rows[index].key for index in asked], pa.string())
    missing = {each.last.key: asked[~valid(_places(kept, each, hashes))] for each in judges.all}
    if any(map(len, missing.values())):
        kept = asyncio.run(_asked(job, judges, gold, missing, kept, folder))
    return {each.last.key: kept.take(_places(kept, each, hashes)) for each in judges.all}


def _places(kept: pa.Table, judge: Cascade, hashes: pa.Array) -> pa.Array:
    """Where a judge's answers on contents are kept; null where they are not."""
    # The hashes of the others cannot be met.
    own = pc.equal(kept.column("judge_key"), judge.last.key)
    mine = pc.if_else(own, kept.column("content_hash"), None)
    return pc.index_in(hashes, mine.combine_chunks(), skip_nulls=True)


def _kept(folder: Path | None) -> pa.Table:
    """Rows of `ANSWERS` of earlier searches.

    Raises:
        UserError: The file holds something else.
    """
    file = None if folder is None else folder / JUDGED
    if file is None or not file.exists():
        return ANSWERS.empty_table()
    try:
        kept = pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}): remove it") from None
    if not kept.schema.equals(ANSWERS):
        raise UserError(f"{file} is no file of an earlier search: remove it, or another --out")
    return kept


async def _asked(  # noqa: PLR0913, PLR0917  # what to ask, and where to keep it
    job: Job,
    judges: Panel,
    gold: GoldRows,
    missing: Mapping[str, np.ndarray],
    kept: pa.Table,
    folder: Path | None,
) -> pa.Table:
    """What was kept, and what is said now; it is written after each judge."""
    async with opened(job) as bench:
        bench.expect(judges.all)
        for judge in judges.all:
            more = await _answers(bench, judge, gold, missing[judge.last.key])
            kept = pa.concat_tables([kept, more])
            if folder is not None:
                _keep(kept, folder / JUDGED)
    return kept


async def _answers(bench: Workbench, judge: Cascade, gold: GoldRows, asked: np.ndarray) -> pa.Table:
    """What a judge says of contents, as `ANSWERS`."""
    starts = range(0, len(asked), UNIT)
    contents = [gold.rows[index].content for index in asked]
    units = await together(
        [bench.judge_contents(judge, contents[start : start + UNIT]) for start in starts]
    )
    return pa.concat_tables(
        [
            ANSWERS.empty_table(),
            *[
                _kept_of(judge, unit, contents[start : start + UNIT])
                for start, unit in zip(starts, units, strict=True)
            ],
        ]
    )


def _kept_of(judge: Cascade, decisions: pa.StructArray, contents: Sequence[Content]) -> pa.Table:
    columns = {
        "judge": pa.repeat(judge.last.name, len(contents)),
        "judge_key": pa.repeat(judge.last.key, len(contents)),
        "content_hash": pa.array([content.hash for content in contents], pa.string()),
        **{name: decisions.field(name) for name in ("status", "probability")},
        **{name: trace(decisions, name) for name in ("windows", "prompt_tokens", "output_tokens")},
    }
    return pa.table([columns[field.name] for field in ANSWERS], schema=ANSWERS)


def _keep(kept: pa.Table, file: Path) -> None:
    """Write what another search need not ask again: not what may be answered the next time."""
    passing = pc.is_in(kept.column("status"), pa.array([status.value for status in RETRYABLE]))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    pq.write_table(kept.filter(pc.invert(passing)), partial)
    partial.replace(file)
