"""What people say, over what judges decided: columns in and columns out.

Their answers are laid over decisions, and taken off again: `decisions.verdicts` gives back what the
judges said, as if nobody had answered.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import HUMAN, OVERRULED, TRACE, VERDICT, Status, trace
from moderay.labels.decisions import decide, listed_scores, struct_of, verdicts

# People's answers under one policy: what workers are given of corrections.
ANSWER = pa.schema(
    [
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        ("note", pa.string()),
    ]
)


def redecide(decisions: pa.StructArray, rule: DecisionRule) -> pa.StructArray:
    """The same verdicts under the rule's threshold.

    Reasoning stays as it was stored, and so does what people decided.
    """
    again = decide(verdicts(decisions), rule)
    by_person = trace(decisions, "overruled").is_valid()
    return _by_people(
        again, by_person, decisions.field("label"), decisions.field("rationale"), rule
    )


def corrected(
    decisions: pa.StructArray, hashes: pa.StringArray, people: pa.Table, rule: DecisionRule
) -> pa.StructArray:
    """Decisions with what people said of their contents.

    A person's answer stands whatever the threshold is, and what the judges said stands beside it.
    A row that nobody but a person has judged, whose answer no longer stands, is `withdrawn`.

    Args:
        decisions: Of the judges, as `decide` makes them.
        hashes: Of their contents.
        people: Rows of `ANSWER`, each content once.
        rule: The policy's.
    """
    answer = pc.index_in(hashes, people.column("content_hash"))
    by_person = answer.is_valid()
    withdrawn = pc.and_not(only_by_person(decisions), by_person)
    if pc.any(withdrawn).as_py():
        decisions = _withdrawn(decisions, withdrawn)
    label, note = (people.column(name).take(answer).combine_chunks() for name in ("label", "note"))
    return _by_people(decisions, by_person, label, note, rule)


def given_by_people(answers: pa.Table) -> pa.StructArray:
    """Structs of `verdicts.VERDICT` for rows that people settle before any judge is asked.

    Args:
        answers: Rows of `ANSWER`, one for each; a null label gives a null.
    """
    rows = len(answers)
    columns = {field.name: pa.nulls(rows, field.type) for field in VERDICT} | {
        "status": pa.repeat(pa.scalar(Status.OK.value), rows),
        "answer": answers.column("label").combine_chunks(),
        "rationale": answers.column("note").combine_chunks(),
        "decided_by": pa.repeat(pa.scalar(HUMAN), rows),
    }
    return pa.StructArray.from_arrays(
        [columns[field.name] for field in VERDICT],
        fields=list(VERDICT),
        mask=columns["answer"].is_null(),
    )


def only_by_person(decisions: pa.StructArray) -> pa.BooleanArray:
    """Where a person settled a row before any judge was asked."""
    by_person = pc.fill_null(pc.equal(trace(decisions, "decided_by"), HUMAN), False)
    return pc.and_(by_person, trace(decisions, "overruled").is_null())


def _by_people(
    decisions: pa.StructArray,
    by_person: pa.BooleanArray,
    label: pa.StringArray,
    note: pa.StringArray,
    rule: DecisionRule,
) -> pa.StructArray:
    """Judges' decisions with people's where `by_person`."""
    if not pc.any(by_person).as_py():
        return decisions
    violating = pa.array(rule.violating).take(pc.index_in(label, pa.array(rule.labels)))
    said = {
        "status": Status.OK.value,
        "violates": violating,
        "label": label,
        "probability": pa.scalar(None, pa.float32()),
        "scores": pa.scalar(None, decisions.type.field("scores").type),
        "rationale": note,
    }
    judged = pc.and_not(by_person, only_by_person(decisions))
    traced = {
        "decided_by": pc.if_else(by_person, HUMAN, trace(decisions, "decided_by")),
        "overruled": _overruled(decisions, judged),
    }
    columns = {
        name: pc.if_else(by_person, value, decisions.field(name)) for name, value in said.items()
    }
    return _with(decisions, columns, traced)


def _overruled(decisions: pa.StructArray, judged: pa.BooleanArray) -> pa.StructArray:
    """The judges' decisions as `OVERRULED`; null where not `judged`."""
    columns = {
        name: decisions.field(name)
        for name in ("status", "violates", "label", "probability", "rationale")
    }
    columns |= {
        "decided_by": trace(decisions, "decided_by"),
        "scores": listed_scores(decisions.field("scores")),
    }
    # What is beneath a null would be written all the same, and read by who does not look.
    kept = {name: pc.if_else(judged, column, None) for name, column in columns.items()}
    return pa.StructArray.from_arrays(
        [kept[field.name] for field in OVERRULED], fields=list(OVERRULED), mask=pc.invert(judged)
    )


def _withdrawn(decisions: pa.StructArray, withdrawn: pa.BooleanArray) -> pa.StructArray:
    """Decisions without those that only a person had made."""
    nothing = {name: pa.scalar(None, pa.string()) for name in ("label", "rationale")}
    columns = nothing | {
        "status": Status.WITHDRAWN.value,
        "violates": pa.scalar(None, pa.bool_()),
    }
    return _with(
        decisions,
        {
            name: pc.if_else(withdrawn, value, decisions.field(name))
            for name, value in columns.items()
        },
        {"decided_by": pc.if_else(withdrawn, None, trace(decisions, "decided_by"))},
    )


def _with(
    decisions: pa.StructArray, columns: Mapping[str, pa.Array], traced: Mapping[str, pa.Array]
) -> pa.StructArray:
    """Decisions with other columns, and others in their trace."""
    traces = {field.name: trace(decisions, field.name) for field in TRACE} | dict(traced)
    fields = {field.name: decisions.field(field.name) for field in decisions.type} | dict(columns)
    return struct_of(decisions.type, fields | {"trace": struct_of(TRACE, traces)})
