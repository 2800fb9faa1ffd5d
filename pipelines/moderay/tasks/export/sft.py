"""`moderay export sft`: what people decided, as conversations that a model is trained on."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa

from moderay.config.job import SCRIPTED, Effort
from moderay.core.errors import UserError
from moderay.core.hashing import number
from moderay.core.storage import shown
from moderay.engines.harmony.prompt import PROMPT_FORMAT
from moderay.engines.harmony.vocabulary import CheckpointVocabulary, Vocabulary, vocabulary
from moderay.labels.manifest_record import Manifest
from moderay.tasks.explain.golden_cases import PolicyFolder
from moderay.tasks.explain.output import OpenOutput
from moderay.tasks.export.cases import Case, golden_cases_of, reviewed_cases
from moderay.tasks.export.conversation import Conversation, Conversations
from moderay.tasks.export.parts import (
    BALANCES,
    PARTS,
    Balance,
    Part,
    once,
    part_of,
    sampled,
    text_key,
)
from moderay.tasks.export.policies import TaughtPolicy, assert_same, taught_policies
from moderay.tasks.export.records import ExportedPolicy, SftRecord
from moderay.tasks.export.sft_card import sft_card
from moderay.tasks.export.sft_table import SCHEMA, sft_table, side_counts
from moderay.tasks.parquet_file import whole_parquet

Golden = Literal["test", "train", "none"]
GOLDEN: tuple[Golden, ...] = get_args(Golden)

RECORD, CARD = "sft.json", "README.md"


@dataclass(frozen=True)
class SftRequest:
    """What is exported, and how.

    Attributes:
        folder: Where to.
        policies: Ids; none: all.
        shares: Of the parts.
        balance: How the sides of a policy are made to count the same.
        golden: What becomes of golden cases.
        effort: How much the prompts ask to reason; None: as the labels' job did.
        vocabulary: A checkpoint's folder, whose token ids are meant; None: those of the model that
            labelled.
    """

    folder: Path
    policies: tuple[str, ...]
    shares: Mapping[Part, float]
    balance: Balance = "weights"
    golden: Golden = "test"
    effort: Effort | None = None
    vocabulary: str | None = None


@dataclass(frozen=True)
class Exported:
    """An export.

    Attributes:
        record: What lies in `sft.json`.
        files: What was written.
    """

    record: SftRecord
    files: tuple[Path, ...]


def export_sft(
    output: OpenOutput, request: SftRequest, folders: Mapping[str, PolicyFolder]
) -> Exported:
    """Write the conversations of what people decided.

    Args:
        output: Labels with reviews.
        request: What is wanted.
        folders: Of policies, by id, where they are known.

    Raises:
        UserError: Nobody decided anything, a policy's text is another one now, or the request has
            a value that is none.
    """
    _assert_valid(request)
    policies = taught_policies(output.manifest, output.layout.url, request.policies)
    known = {policy.id: folders[policy.id] for policy in policies if policy.id in folders}
    golden = list(_golden_cases(policies, known))
    reviewed = reviewed_cases(output, policies)
    left_out = reviewed.left_out
    if not reviewed.cases and not (golden and request.golden != "none"):
        raise UserError(
            f"{shown(output.layout.url)}: nobody decided anything yet: moderay review, or name "
            "golden sets with --job"
        )
    vocab, vocabulary_name = _vocabulary(output.manifest, request.vocabulary)
    effort = request.effort or policies[0].effort
    writers = {policy.id: Conversations(policy, effort, vocab) for policy in policies}
    parts = {
        part: _written(cases, writers, left_out)
        for part, cases in _parts(reviewed.cases, golden, request, left_out).items()
    }
    record = SftRecord(
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        moderay=importlib.metadata.version("moderay"),
        output=shown(output.layout.url),
        name=output.manifest.name,
        model=output.manifest.last_run.model,
        vocabulary=vocabulary_name,
        effort=effort,
        prompt_format=PROMPT_FORMAT,
        shares={part: request.shares[part] for part in PARTS},
        balance=request.balance,
        golden=request.golden,
        rows={part: len(rows) for part, rows in parts.items()},
        left_out={reason: count for reason, count in left_out.items() if count},
        policies={
            policy.id: _policy(output.manifest, policy, known.get(policy.id), parts)
            for policy in policies
        },
    )
    tables = {part: sft_table(part, rows, request.balance) for part, rows in parts.items()}
    return Exported(record, _write(output, request.folder, tables, record))


def _assert_valid(request: SftRequest) -> None:
    """Raises `UserError`: in Python any text may have been given."""
    for option, value, valid in (
        ("--balance", request.balance, BALANCES),
        ("--golden", request.golden, GOLDEN),
        ("--effort", request.effort, (*get_args(Effort), None)),
    ):
        if value not in valid:
            raise UserError(f"{option} {value}: valid are {', '.join(filter(None, valid))}")


def _golden_cases(
    policies: Sequence[TaughtPolicy], known: Mapping[str, PolicyFolder]
) -> Iterator[Case]:
    for policy in policies:
        if (folder := known.get(policy.id)) is not None:
            assert_same(policy, folder.policy, policy.id)
            yield from golden_cases_of(policy, folder.cases or ())


def _parts(
    reviewed: Sequence[Case], golden: Sequence[Case], request: SftRequest, left_out: Counter[str]
) -> dict[Part, list[Case]]:
    """The cases by part. What is like a golden case, under any policy, is trained on nowhere."""
    golden_keys = {text_key(case.text) for case in golden}
    parts: dict[Part, list[Case]] = {part: [] for part in PARTS}
    held = [] if request.golden == "none" else golden
    for case in once([*held, *reviewed]):
        key = text_key(case.text)
        if request.golden == "train" or key not in golden_keys:
            parts[part_of(key, request.shares)].append(case)
        elif case.source == "golden":
            parts["test"].append(case)
        else:
            left_out["golden"] += 1
    if request.balance == "sample":
        kept = sampled(parts["train"])
        left_out["sampled"] += len(parts["train"]) - len(kept)
        parts["train"] = kept
    return {part: sorted(cases, key=_shuffled) for part, cases in parts.items()}


def _shuffled(case: Case) -> int:
    """Policies and sides mixed, in the same order each time."""
    return number(f"order:{case.policy}:{case.content_hash}")


def _written(
    cases: Iterable[Case], writers: Mapping[str, Conversations], left_out: Counter[str]
) -> list[tuple[Case, Conversation]]:
    written = []
    for case in cases:
        if (conversation := writers[case.policy].of(case)) is None:
            left_out["long"] += 1
        else:
            written.append((case, conversation))
    return written


def _vocabulary(manifest: Manifest, named: str | None) -> tuple[Vocabulary, str]:
    """The vocabulary of the model that is to be trained, and what the record calls it."""
    model = manifest.last_run.model
    source = named or (model.source if model is not None else None)
    if source is not None and source.startswith(SCRIPTED):
        source = None
    vocab = vocabulary(source)
    is_own = isinstance(vocab, CheckpointVocabulary)
    return vocab, source if is_own and source else "harmony"


def _policy(
    manifest: Manifest,
    policy: TaughtPolicy,
    folder: PolicyFolder | None,
    parts: Mapping[Part, Sequence[tuple[Case, Conversation]]],
) -> ExportedPolicy:
    record = manifest.policies[policy.id]
    return ExportedPolicy(
        title=record.title,
        version=record.version,
        instructions=policy.instructions,
        labels=dict(policy.labels),
        golden_cases=None if folder is None else len(folder.cases or ()),
        parts={
            part: side_counts([row for row in rows if row[0].policy == policy.id])
            for part, rows in parts.items()
        },
    )


def _write(
    output: OpenOutput, folder: Path, tables: Mapping[Part, pa.Table], record: SftRecord
) -> tuple[Path, ...]:
    """The record last: where it is, the rest is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    files = []
    for part, table in tables.items():
        files.append(folder / f"{part}.parquet")
        with whole_parquet(files[-1], SCHEMA, [output.layout], "--out") as writer:
            writer.write_table(table)
    card, described = folder / CARD, folder / RECORD
    card.write_text(sft_card(record), encoding="utf-8")
    described.write_bytes(record.to_json())
    return (*files, card, described)
