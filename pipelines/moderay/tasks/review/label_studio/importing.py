"""Answers of Label Studio's people as reviews.

What is imported twice is known by what it says, and is kept once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from moderay.core.errors import Problem, Problems, UserError, first_line, nearest
from moderay.core.storage import plain_errors
from moderay.corpus.content import content_hash
from moderay.labels.review_records import Review, review_time
from moderay.labels.reviews import ReviewStore
from moderay.tasks.review.label_studio.exporting import LABEL, NOTE
from moderay.tasks.review.output import ReviewedOutput

# Problems that are named.
MOST_SHOWN = 20
_HEX = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Part(BaseModel):
    """Of Label Studio's JSON, what is read here; it has more."""

    model_config = ConfigDict(extra="ignore")


class _Data(_Part):
    """What moderay wrote of a task."""

    policy: str
    policy_hash: str
    content_hash: _HEX
    shard: str
    row: int
    kind: str
    plan: str | None = None
    text: str | None = None
    turns: list[dict[str, str]] | None = None


class _Result(_Part):
    from_name: str = ""
    value: dict[str, Any] = {}


class _Annotation(_Part):
    id: int | str | None = None
    unique_id: str | None = None
    completed_by: int | str | dict[str, Any] | None = None
    result: list[_Result] = []
    was_cancelled: bool = False
    created_at: datetime | None = None
    updated_at: datetime | None = None


class _Task(_Part):
    data: _Data
    annotations: list[_Annotation] = []
    predictions: list[Any] = []


_TASKS = TypeAdapter(list[_Task])


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        added: Answers that were new.
        known: Answers that were taken before.
        unanswered: Tasks without an answer.
    """

    added: int
    known: int
    unanswered: int


def import_answers(output: ReviewedOutput, file: Path, reviewer: str | None) -> Imported:
    """Keep the answers in an export of Label Studio.

    Args:
        output: That they are about.
        file: Its export in the format JSON.
        reviewer: Who gave those whose person is a number or nobody; by default a number is its own
            name, such as label-studio:1.

    Raises:
        Problems: Something in it cannot be taken; then nothing is.
        UserError: It cannot be read.
    """
    tasks = _read(file)
    _check_one_person(tasks, reviewer)
    problems: list[Problem] = []
    reviews: dict[str, Review] = {}
    for number, task in enumerate(tasks, start=1):
        try:
            _check(output, task)
            found = list(_reviews(output, task, reviewer))
        except UserError as error:
            problems.append(Problem(str(file), None, f"task {number}: {error}"))
            continue
        reviews |= {review.id: review for review in found}
    if problems:
        raise Problems(problems[:MOST_SHOWN])
    store = ReviewStore(output.layout)
    known = {review.id for review in store.read()}
    new = [review for review in reviews.values() if review.id not in known]
    by_session: dict[str, list[Review]] = {}
    for review in new:
        by_session.setdefault(review.session, []).append(review)
    for session, of_session in by_session.items():
        store.add_all(session, of_session)
    silent = sum(not task.annotations for task in tasks)
    return Imported(len(new), len(reviews) - len(new), silent)


def _read(file: Path) -> list[_Task]:
    with plain_errors(str(file)):
        data = file.read_bytes()
    try:
        return _TASKS.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{file} is no export of Label Studio with tasks of moderay "
            f"({where and f'{where}: '}{first_line(ValueError(first['msg']))}): export the project "
            "again as JSON, not as JSON-MIN or CSV"
        ) from None


def _check(output: ReviewedOutput, task: _Task) -> None:
    """Whether a task is about this output, and about the content that it shows.

    Raises:
        UserError: It is not.
    """
    data = task.data
    if data.policy not in output.policies:
        raise UserError(
            f"the output has no policy {data.policy!r}; {nearest(data.policy, output.policies)}"
        )
    turns = data.turns or []
    parts = [data.text] if data.text is not None else [turns[0]["content"]] if turns else [""]
    if data.kind == "conversation":
        parts = [part for turn in turns for part in (turn["role"], turn["content"])]
    if content_hash([part or "" for part in parts]) != data.content_hash:
        raise UserError("its content is not the one that was exported")


def _reviews(output: ReviewedOutput, task: _Task, reviewer: str | None) -> Iterator[Review]:
    """The answers to a task, those that were cancelled as skipped.

    Raises:
        UserError: One has a label that the policy has not, or nobody gave it.
    """
    data = task.data
    policy = output.policies[data.policy]
    for annotation in task.annotations:
        label = None if annotation.was_cancelled else _value(annotation, LABEL, "choices")
        if label is not None and label not in policy.labels:
            raise UserError(f"{policy.id} has no label {label!r}; {nearest(label, policy.labels)}")
        note = _value(annotation, NOTE, "text")
        who, when = _person(annotation, reviewer), _time(annotation)
        said = [data.policy, data.policy_hash, data.content_hash, who, when, label, note]
        yield Review(
            id=_digest(said, 16),
            # Of all that one person answered on a day: to be kept in one file.
            session=_digest(["label-studio", who, when[:10]], 8),
            reviewer=who,
            time=when,
            policy=data.policy,
            policy_hash=data.policy_hash,
            content_hash=data.content_hash,
            shard=data.shard,
            row=data.row,
            label=label,
            note=note,
            queue="import",
            plan=data.plan,
            # Whether people were shown predictions is a setting that no export tells.
            assisted=bool(task.predictions),
        )


def _value(annotation: _Annotation, name: str, field: str) -> str | None:
    """The first value of a part of the labeling configuration."""
    for result in annotation.result:
        if result.from_name == name:
            values = result.value.get(field)
            value = values[0] if isinstance(values, list) and values else values
            return value if isinstance(value, str) and value else None
    return None


def _check_one_person(tasks: Sequence[_Task], reviewer: str | None) -> None:
    """Whether all answers that a name is given for are one person's.

    Raises:
        UserError: They are several people's, who would become one.
    """
    people = {
        annotation.completed_by
        for task in tasks
        for annotation in task.annotations
        if isinstance(annotation.completed_by, int)
    }
    if reviewer is not None and len(people) > 1:
        numbers = ", ".join(map(str, sorted(people)))
        raise UserError(
            f"--as {reviewer} names one person, and the answers are of several (users {numbers} of "
            "Label Studio): leave it out"
        )


def _person(annotation: _Annotation, reviewer: str | None) -> str:
    """Who answered: by an address where the export has it, else as a name was given.

    Raises:
        UserError: Nobody is named.
    """
    by = annotation.completed_by
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    if isinstance(by, str) and by:
        return by
    if reviewer is not None:
        return reviewer
    if by is None:
        raise UserError("it does not say who answered: name them with --as")
    return f"label-studio:{by}"


def _time(annotation: _Annotation) -> str:
    when = annotation.updated_at or annotation.created_at
    if when is None:
        raise UserError("an answer has no time")
    return review_time(when if when.tzinfo else when.replace(tzinfo=UTC))


def _digest(parts: list[str | None], size: int) -> str:
    data = json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=size, person=b"label-studio").hexdigest()
