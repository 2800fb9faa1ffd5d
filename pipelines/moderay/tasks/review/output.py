"""An output as a person reviews it: its policies, and what was labelled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moderay.config.policy import Label, Policy
from moderay.core.errors import UserError, nearest
from moderay.core.storage import plain_errors, shown
from moderay.engines.harmony.prompt import answer_format
from moderay.labels.layout import Layout, published_markers
from moderay.labels.manifest_record import Manifest, PolicyRecord
from moderay.labels.manifest_store import read_manifest
from moderay.labels.records import ShardMarker
from moderay.labels.review_records import policy_hash
from moderay.tasks.output_contents import OutputContents


@dataclass(frozen=True)
class ReviewPolicy:
    """A policy as it was judged.

    Attributes:
        id: Of the policy.
        title: For people.
        version: Of the policy file.
        text: What its author wrote: as the model read it, without how to answer.
        labels: What may be answered, by name, mildest first.
        threshold: On P(violates).
        hash: Of text and labels; answers to another one are void.
    """

    id: str
    title: str
    version: int
    text: str
    labels: Mapping[str, Label]
    threshold: float
    hash: str


@dataclass(frozen=True)
class ReviewedOutput:
    """An output whose labels are there.

    Attributes:
        layout: Of it.
        storage: Options of its storage, and of its input's.
        content: The input's column, or template of columns, that was judged.
        policies: By id.
        markers: Of its published shards, by shard.
    """

    layout: Layout
    storage: Mapping[str, Any]
    content: str
    policies: Mapping[str, ReviewPolicy]
    markers: Mapping[str, ShardMarker]

    @cached_property
    def contents(self) -> OutputContents:
        """Reads what was labelled."""
        return OutputContents(self.layout, self.content, self.storage)

    def chosen(self, ids: Collection[str]) -> list[ReviewPolicy]:
        """The policies of these ids; all where none is named.

        Raises:
            UserError: The output has no such policy.
        """
        if unknown := [name for name in ids if name not in self.policies]:
            raise UserError(
                f"{shown(self.layout.url)} has no policy {unknown[0]!r}; "
                f"{nearest(unknown[0], self.policies)}"
            )
        return [policy for name, policy in self.policies.items() if not ids or name in ids]


def open_output(url: str, storage: Mapping[str, Any]) -> ReviewedOutput:
    """Look at an output.

    Raises:
        UserError: There are no labels, or not yet.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
            )
        markers = published_markers(layout)
    if not markers:
        raise UserError(f"{shown(url)}: no shard of it is labelled yet")
    return ReviewedOutput(
        layout, storage, manifest.selection.content, review_policies(manifest), markers
    )


def review_policies(manifest: Manifest) -> dict[str, ReviewPolicy]:
    """The policies of an output, by id; one that no model was asked about is left out."""
    made = {name: _policy(name, record) for name, record in manifest.policies.items()}
    return {name: policy for name, policy in made.items() if policy is not None}


def _policy(name: str, record: PolicyRecord) -> ReviewPolicy | None:
    asked, text = record.asked, record.text
    if asked is None or text is None:
        return None
    labels = {
        label: Label(violates=violates, title=record.label_titles.get(label, ""))
        for label, violates in record.sides.items()
    }
    return ReviewPolicy(
        name,
        record.title,
        record.version,
        _written(text, labels, asked.answer),
        labels,
        record.threshold,
        policy_hash(text, record.sides),
    )


def _written(text: str, labels: Mapping[str, Label], answer: str | None) -> str:
    """A policy's text without the sections that tell the model how to answer."""
    form = answer_format(
        Policy.model_validate(
            {"id": "a", "labels": dict(labels), "answer": answer or "rationale", "text": "-"}
        )
    )
    return "\n\n".join(part.strip("\n") for part in text.split(form) if part.strip("\n"))
