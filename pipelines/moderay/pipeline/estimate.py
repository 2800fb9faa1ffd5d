"""`moderay plan`: what a run will cost, before it. A part of what is left is read and prepared as
the run itself would do it; the rest is taken to be like it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.core.verdicts import CONTENT_HASH, Origin, structs
from moderay.corpus.content import windows
from moderay.engines.from_job import engine_spec
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.judges.cascade import Cascade
from moderay.judges.glance import Glance
from moderay.judges.reason import Reason
from moderay.labels.index import File, Partition, hash_keys
from moderay.labels.reuse import LabelFile, ReadAlong, entries
from moderay.pipeline.check import Checked
from moderay.pipeline.plan import Plan
from moderay.pipeline.stages import prepare
from moderay.pipeline.stages.prepare import valid
from moderay.pipeline.stages.spans import read_span, spans


@dataclass(frozen=True)
class Forecast:
    """What is left to do. `rows`: left, before where and sample, of which `read` were read; from
    these are scaled up: `selected` rows, `distinct` contents; by policy the verdicts that are
    `reused` and `duplicates` and what each judge settles; `requests`, and tokens, those of prompts
    with the policies' `cached` part. `guesses`: what had to be assumed. `tokens_per_s`: of one GPU
    (or engine).
    """

    rows: int
    read: int
    selected: int
    distinct: int
    verdicts: Mapping[str, Mapping[str, int]]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    guesses: tuple[str, ...]
    tokens_per_s: float | None

    @property
    def gpu_hours(self) -> float | None:
        return (
            None
            if self.tokens_per_s is None
            else (self.prompt_tokens + self.output_tokens) / self.tokens_per_s / 3600
        )


@dataclass
class _Asked:
    """Of one policy: verdicts that cost nothing, by where they come from, and the distinct contents
    an engine is asked for (`keys`).
    """

    settled: Counter[str] = field(default_factory=Counter)
    keys: set[int] = field(default_factory=set)
    contents: int = 0
    audited: int = 0
    windows: int = 0
    tokens: int = 0


def forecast(checked: Checked, plan: Plan, most: int, rate: float | None) -> Forecast:
    """Read up to `most` of the rows that are left. `rate`: tokens a second of one GPU; None takes
    an earlier run's of this output or of one that is reused.
    """
    asked = {cascade.policy.id: _Asked() for cascade in checked.cascades}
    read, selected, hashes = _read(checked, plan, most, asked)
    scale, guesses, total = plan.rows_left / max(1, read), dict[str, None](), Counter[str]()
    verdicts = {}
    for cascade in checked.cascades:
        settled, cost = _on_engine(
            cascade, asked[cascade.policy.id], _manifests(checked, plan), guesses
        )
        verdicts[cascade.policy.id] = {
            name: round(scale * count)
            for name, count in (asked[cascade.policy.id].settled + settled).items()
        }
        total += Counter({name: round(scale * count) for name, count in cost.items()})
    return Forecast(
        plan.rows_left,
        read,
        round(scale * selected),
        round(scale * len(hashes)),
        verdicts,
        total["requests"],
        total["prompt"],
        total["cached"],
        total["output"],
        tuple(guesses),
        rate or _rate(_manifests(checked, plan)),
    )


def _read(
    checked: Checked, plan: Plan, most: int, asked: Mapping[str, _Asked]
) -> tuple[int, int, set[int]]:
    """Rows read, rows selected, and the keys of their contents; `asked` is filled in."""
    elsewhere, seen, read, selected = _elsewhere(checked), set[int](), 0, 0
    for rows, unit in _units(checked, plan, most):
        column = structs(unit.column(CONTENT_HASH.name))
        some, keys = np.flatnonzero(valid(column)), np.zeros(len(unit), np.uint64)
        keys[some] = hash_keys(column.take(pa.array(some)))
        found = elsewhere.find(keys[some])
        for bit, cascade in enumerate(checked.cascades):
            there = np.zeros(len(unit), bool)
            there[some[found.at]] = (found.mask >> np.uint64(bit) & np.uint64(1)).astype(bool)
            _count(checked, cascade, unit, keys, there, asked[cascade.policy.id])
        seen |= set(keys[some].tolist())
        read, selected = read + rows, selected + len(unit)
    return read, selected, seen


def _units(checked: Checked, plan: Plan, most: int) -> Iterator[tuple[int, pa.Table]]:
    """Prepared units, in any order, and how many rows each is of."""
    vocab, job = vocabulary(engine_spec(checked.job, gpus=0).vocabulary_source), checked.job
    todo = [
        (work, span) for work in plan.todo for span in spans(work.shard, work.missing, job.unit)
    ]
    read = 0
    for at in np.random.default_rng(0).permutation(len(todo)):
        work, span = todo[at]
        earlier = (
            ReadAlong(
                plan.outputs, work.earlier, [cascade.policy.id for cascade in checked.cascades]
            )
            if work.earlier
            else None
        )
        for (start, end), unit in read_span(span, job, checked.cascades, vocab, earlier):
            yield end - start, unit
            read += end - start
            if read >= most:
                return


def _elsewhere(checked: Checked) -> Partition:
    """Contents with verdicts in the outputs that are reused."""
    found, policies = Partition(), [cascade.policy.id for cascade in checked.cascades]
    for number, output in enumerate(checked.reused, start=1):
        for shard, usable in output.shards.items():
            for source, hashes, rows, masks in entries(
                output.layout, LabelFile(number, shard, usable), policies
            ):
                good = np.flatnonzero(valid(hashes) & (masks != 0))
                found.add(
                    File(source), hash_keys(hashes.take(pa.array(good))), rows[good], masks[good]
                )
    return found


def _count(
    checked: Checked,
    cascade: Cascade,
    unit: pa.Table,
    keys: np.ndarray,
    there: np.ndarray,
    asked: _Asked,
) -> None:
    known, audited = (
        prepare.known(unit, cascade.policy.id),
        prepare.audited(unit, cascade.policy.id),
    )
    reused = _count_of(known.field("origin"), Origin.REUSED.value)
    asked.settled["reused"] += reused
    for judge in cascade.on_columns:
        asked.settled[judge.name] += _count_of(
            known.field("decided_by").filter(_not(known.field("origin"), Origin.REUSED.value)),
            judge.name,
        )
    open_ = valid(structs(unit.column("ids"))) & (~valid(known) | audited)
    asked.settled["reused"] += int((open_ & there).sum())
    rows = np.flatnonzero(open_ & ~there)
    new = np.array([key not in asked.keys for key in keys[rows].tolist()], bool)
    new[np.setdiff1d(np.arange(len(rows)), np.unique(keys[rows], return_index=True)[1])] = False
    chosen = rows[new]
    asked.keys |= set(keys[chosen].tolist())
    asked.settled["duplicates"] += len(rows) - len(chosen)
    for ids in structs(unit.column("ids")).take(pa.array(chosen)):
        job = checked.job
        cut = windows(ids.values, job.windows.tokens, job.windows.overlap)
        asked.windows, asked.tokens = asked.windows + len(cut), asked.tokens + sum(map(len, cut))
    asked.contents += len(chosen)
    asked.audited += int(audited[chosen].sum())


def _not(column: pa.Array, value: str) -> pa.Array:
    return pa.array(np.array(column.to_numpy(zero_copy_only=False) != value, bool))


def _count_of(column: pa.Array, value: str) -> int:
    return int((column.to_numpy(zero_copy_only=False) == value).sum())


def _on_engine(
    cascade: Cascade, asked: _Asked, before: list[Mapping[str, Any]], guesses: dict[str, None]
) -> tuple[Counter[str], Counter[str]]:
    """What the judges on the engine settle of what they are asked, and what that costs: requests,
    prompt, cached and output tokens.
    """
    settled, cost = Counter[str](), Counter[str]()
    left = 1.0
    each = asked.windows / max(1, asked.contents)
    for judge in cascade.on_engine:
        contents = asked.contents * left + (
            asked.audited * (1 - left) if judge is cascade.last else 0
        )
        share = 1.0 if judge is cascade.last else _share(cascade, judge, before, guesses)
        settled[judge.name] += round(asked.contents * left * share)
        prefix = len(judge.safeguard.prompt.prefix)
        requests = 2 if isinstance(judge, Reason) and not judge.safeguard.in_words else 1
        output = _output_tokens(cascade, judge, before, guesses) if isinstance(judge, Reason) else 1
        prompt = contents * (each * prefix + asked.tokens / max(1, asked.contents))
        # The second request's prompt is the first's and its answer, all of it in the cache.
        cost += Counter(
            requests=round(requests * contents * each),
            prompt=round(prompt * requests + (requests - 1) * contents * each * output),
            cached=round(
                contents * each * prefix + (requests - 1) * (prompt + contents * each * output)
            ),
            output=round(contents * each * output),
        )
        left *= 1 - share
    return settled, cost


def _share(
    cascade: Cascade, judge: Any, before: list[Mapping[str, Any]], guesses: dict[str, None]
) -> float:
    """Of what it is asked, from its card or from an earlier run; nothing where nobody knows."""
    if isinstance(judge, Glance) and judge.card is not None:
        return judge.card.settled
    for manifest in before:
        said = manifest.get("judges", {}).get(cascade.policy.id, {})
        on_engine = sum(
            said[other.name]["settled"] for other in cascade.on_engine if other.name in said
        )
        if judge.name in said and on_engine:
            return float(said[judge.name]["settled"] / on_engine)
    guesses[
        f"{cascade.policy.id}: nobody knows yet what {judge.name} settles; nothing was assumed"
    ] = None
    return 0.0


def _output_tokens(
    cascade: Cascade, judge: Reason, before: list[Mapping[str, Any]], guesses: dict[str, None]
) -> float:
    """Of one answer with its reasoning: as an earlier run had it, or the most there can be."""
    for manifest in before:
        counts, said = (
            manifest.get("counts", {}).get(cascade.policy.id, {}),
            manifest.get("judges", {}).get(cascade.policy.id, {}),
        )
        if judge.name in said and said[judge.name]["settled"] and counts.get("output_tokens"):
            return float(counts["output_tokens"] / said[judge.name]["settled"])
    guesses[
        (
            f"{cascade.policy.id}: no earlier run shows how long the reasoning is; the whole "
            "budget "
            "was assumed"
        )
    ] = None
    return judge.max_tokens


def _manifests(checked: Checked, plan: Plan) -> list[Mapping[str, Any]]:
    return [
        *([plan.manifest] if plan.manifest else []),
        *[output.manifest for output in checked.reused],
    ]


def _rate(before: list[Mapping[str, Any]]) -> float | None:
    """Tokens a second of one GPU, or of one engine without GPUs, in the last run that judged
    something.
    """
    for manifest in before:
        for run in reversed(manifest["runs"]):
            if run.get("rates") and run["hardware"].get("engines"):
                return float(
                    sum(rate["tokens_per_s"] for rate in run["rates"].values())
                    / max(run["hardware"]["gpus"], run["hardware"]["engines"])
                )
    return None
