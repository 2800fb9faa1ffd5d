"""An explanation as people read it: sections of names and values, for the terminal and for a page.

First what matters most, in sentences. Then all that is known, field by field: what a record holds
is told because it is there, and not because somebody thought of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import BaseModel

from moderay.core.wording import titled
from moderay.tasks.explain.records import Explanation, JudgedPart

# What stands for a value that is not known.
NONE = "–"
# Characters of a value that still stands in a line.
LINE = 100


@dataclass(frozen=True)
class Entry:
    """A name and its value.

    Attributes:
        name: With the names of what it lies in, joined by dots.
        value: As text, in its lines.
        meaning: What the field is.
    """

    name: str
    value: str
    meaning: str = ""

    @property
    def is_hostile(self) -> bool:
        """Whether it is somebody's content, which nobody is to see unasked."""
        of_case = self.name.startswith("golden.nearest.") and self.name.endswith(".content")
        of_row = self.name == "content" or (self.name.startswith("carried.") and self.is_long)
        return of_case or of_row

    @property
    def is_long(self) -> bool:
        """Whether it needs lines of its own."""
        return "\n" in self.value or len(self.value) > LINE


@dataclass(frozen=True)
class Section:
    """Values that belong together.

    Attributes:
        title: What they are of.
        sentences: What matters most of it.
        entries: All of it that is known, in order.
        empty: Names of what is not known, or not there.
    """

    title: str
    sentences: tuple[str, ...]
    entries: tuple[Entry, ...]
    empty: tuple[str, ...] = ()


def _section(title: str, sentences: Iterator[str], found: Iterator[Entry]) -> Section:
    told = list(_long_ones_once(found))
    return Section(
        title,
        tuple(sentences),
        tuple(entry for entry in told if entry.value != NONE),
        tuple(entry.name for entry in told if entry.value == NONE),
    )


def sections(explanation: Explanation) -> Iterator[Section]:
    """What there is to read, in order."""
    yield _section("The content", _row_sentences(explanation), entries(explanation.row))
    for name, judged in explanation.verdicts.items():
        title = f"{name}: {judged.policy.title}" if judged.policy.title else name
        yield _section(title, _sentences(judged), entries(judged))
    own = {
        name: getattr(explanation, name) for name in ("made", "moderay", "schema_version", "output")
    }
    yield _section("The labels", iter(()), _of_fields(Explanation, own, ""))


def entries(record: BaseModel, above: str = "") -> Iterator[Entry]:
    """Every value in a record, those that its model does not name included.

    Args:
        record: With other records in it.
        above: Names of what it lies in.
    """
    values = {name: getattr(record, name) for name in type(record).model_fields}
    yield from _of_fields(type(record), values | (record.model_extra or {}), above)


def _long_ones_once(found: Iterator[Entry]) -> Iterator[Entry]:
    """With a reference where a long text, such as a policy's, is told again."""
    told: dict[str, str] = {}
    for entry in found:
        if entry.is_long and entry.value in told:
            yield replace(entry, value=f"as {told[entry.value]}")
        else:
            told.setdefault(entry.value, entry.name)
            yield entry


def _of_fields(model: type[BaseModel], values: dict[str, object], above: str) -> Iterator[Entry]:
    for name, value in values.items():
        known = model.model_fields.get(name)
        meaning = (known.description or "") if known is not None else ""
        yield from _of(f"{above}{name}", value, " ".join(meaning.split()))


def _of(name: str, value: object, meaning: str) -> Iterator[Entry]:
    if isinstance(value, BaseModel):
        yield from entries(value, f"{name}.")
    elif isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _of(f"{name}.{key}", each, meaning)
    elif isinstance(value, list | tuple) and any(_is_nested(each) for each in value):
        for number, each in enumerate(value, start=1):
            yield from _of(f"{name}.{number}", each, meaning)
    else:
        yield Entry(name, _text(value), meaning)


def _is_nested(value: object) -> bool:
    return isinstance(value, BaseModel | dict | list | tuple)


def _text(value: object) -> str:
    if value is None or value == "" or (_is_nested(value) and not value):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)


def _row_sentences(explanation: Explanation) -> Iterator[str]:
    row = explanation.row
    name = explanation.output.name
    yield f"Row {row.row:,} of {row.shard}, as it was labelled by {name}."
    yield {
        True: f"It violates at least one policy of {name}.",
        False: f"It violates no policy of {name}.",
        None: f"It was not judged under every policy of {name}, and violates none of the others.",
    }[row.flagged]
    if row.content is None:
        yield f"The content is not to be had: {row.content_missing}."


def _sentences(judged: JudgedPart) -> Iterator[str]:
    """Who decided what, why, and who decided otherwise."""
    decision = judged.decision
    trace = decision.trace
    yield _verdict(judged)
    if decision.rationale:
        who = {"rules": "The rule that holds", "human": "The person's note"}
        yield f"{who.get(trace.decided_by or '', 'The reason given')}: {decision.rationale}"
    if (overruled := trace.overruled) is not None:
        same = "the same" if overruled.label == decision.label else "otherwise"
        said = titled(overruled.label or "no label", _title(judged, overruled.label))
        yield f"A person decided; {overruled.decided_by or 'no judge'} had said {same}: {said}."
    if trace.audit is not None:
        before = {True: "violates", False: "safe", None: "not known"}[trace.audit.violates]
        yield f"It was audited: {trace.audit.judge} had said {before}."
    if trace.origin == "reused":
        yield "The verdict was taken from an earlier run, which judged the same content."
    elif trace.origin == "duplicate":
        yield "The verdict was given to another row of the same content in this run."
    for review in judged.reviews:
        label = titled(review.label, _title(judged, review.label)) if review.label else "no label"
        counts = review.standing and review.same_policy is not False
        no_more = "" if counts else ", which does not count"
        yield f"{review.reviewer} said {label} on {review.time[:10]}{no_more}."
    for case in judged.golden.nearest:
        label = titled(case.label, _title(judged, case.label))
        yield f"A golden case like it ({case.likeness:.0%} alike) has the label {label}."


def _verdict(judged: JudgedPart) -> str:
    decision = judged.decision
    if decision.violates is None:
        return f"Not judged ({decision.status}), which is not the same as safe."
    label = titled(decision.label or NONE, _title(judged, decision.label))
    by = decision.trace.decided_by or "nobody"
    side = "Violates" if decision.violates else "Does not violate"
    text = f"{side}: {label}, decided by {by}"
    if decision.probability is None:
        return f"{text}; there is no probability of it."
    if judged.threshold is None:
        return f"{text}; P(violates) is {decision.probability:.4g}."
    against = "at least" if decision.violates else "below"
    return (
        f"{text}; P(violates) is {decision.probability:.4g}, {against} the threshold "
        f"{judged.threshold:g}."
    )


def _title(judged: JudgedPart, label: str | None) -> str | None:
    return next((each.title for each in judged.labels if each.label == label), None)
