"""Verdict x threshold -> decision: columns in and columns out, re-done at any time without a model.

Beside it, what is counted of decisions: for progress, markers and the manifest, and for trends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.decision_rule import DecisionRule
from moderay.core.verdicts import (
    AUDIT,
    OVERRULED,
    RETRYABLE,
    TRACE,
    VERDICT,
    VERDICTS,
    Origin,
    Status,
    decision_type,
    judged_field,
    trace,
)

# Bins of P(violates): most contents are nearly sure, and there a shift is seen first.
EDGES = np.array(
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999], np.float32
)
# Of a failed row's reason; and how many reasons are counted.
REASON_CHARS, MOST_REASONS = 80, 20


def decide(verdicts: pa.StructArray, rule: DecisionRule, reasoning: str = "all") -> pa.StructArray:
    """Decide verdicts under one policy.

    Without scores, from an endpoint that gives none, the label is the one that the model wrote,
    `violates` is that label's, and no threshold changes it. A screen settles only what does not
    violate: the mildest label. `violates`, `label` and `probability` are null where there is no
    verdict: not judged is never safe.

    Args:
        verdicts: structs of `verdicts.VERDICT`.
        rule: the policy's labels and threshold.
        reasoning: whose reasoning is kept: all | flagged (and audited) | none.

    Returns:
        Structs of `verdicts.decision_type`. P(violates) of a judge that the rule has a calibration
        of is read by it; `scores` stay as they were. `violates` is P(violates) >= threshold,
        `label` the likeliest label on that side, and `answer` is kept only where the model wrote
        another one.
    """
    column = {name: verdicts.field(name) for name in VERDICT.names}
    scored = column["scores"].is_valid().to_numpy(zero_copy_only=False)
    written = _written(column, rule)
    kind = decision_type(rule.labels)
    scores = _scores(column["scores"], scored, written, len(rule.labels))
    probability = _calibrated(rule.probabilities(scores), column["decided_by"], rule)
    violates = rule.violates(probability)
    unknown = ~scored & (written < 0)
    label = pa.array(rule.likeliest(scores, violates), pa.string(), mask=unknown)
    decided = column | {
        "probability": pa.array(probability, pa.float32(), mask=~scored),
        "violates": pa.array(violates, pa.bool_(), mask=unknown),
        "label": label,
        "scores": _named(scores, scored, kind.field("scores").type),
        "answer": _unless_same(column["answer"], label),
        "audit": _audit(column["audit"], rule),
        "overruled": pa.nulls(len(verdicts), OVERRULED),
    }
    kept = _reasoning_kept(decided, reasoning)
    decided["reasoning"] = pc.if_else(kept, decided["reasoning"], None)
    decided["trace"] = struct_of(TRACE, decided)
    return struct_of(kind, decided)


def _calibrated(
    probability: np.ndarray, decided_by: pa.StringArray, rule: DecisionRule
) -> np.ndarray:
    """P(violates), that of the judge whose it is as the rule's calibration reads it."""
    if rule.calibration is None:
        return probability
    own = pc.fill_null(pc.equal(decided_by, rule.calibration.judge), False)
    is_own = own.to_numpy(zero_copy_only=False)
    return np.where(is_own, rule.calibration.of(probability), probability)


def struct_of(kind: pa.StructType, columns: Mapping[str, pa.Array]) -> pa.StructArray:
    """Structs of these columns, by name."""
    return pa.StructArray.from_arrays([columns[field.name] for field in kind], fields=list(kind))


def _written(column: Mapping[str, pa.Array], rule: DecisionRule) -> np.ndarray:
    """Which label an answer without scores names, by its index among the policy's; -1 for none."""
    by_screen = pc.fill_null(pc.equal(column["decided_by"], "screen"), False)
    answer = pc.if_else(by_screen, rule.mildest, column["answer"])
    judged = pc.if_else(pc.equal(column["status"], Status.OK.value), answer, None)
    index = pc.fill_null(pc.index_in(judged, pa.array(rule.labels)), -1)
    return np.asarray(index.to_numpy(zero_copy_only=False))


def _scores(
    scores: pa.ListArray, scored: np.ndarray, written: np.ndarray, labels: int
) -> np.ndarray:
    """Scores as float32 (rows, labels); where not `scored`, 1 for the label that is `written`."""
    table = np.zeros((len(scores), labels), dtype=np.float32)
    table[~scored, written[~scored]] = 1
    table[scored] = scores.flatten().to_numpy(zero_copy_only=False).reshape(-1, labels)
    return table


def _named(scores: np.ndarray, scored: np.ndarray, kind: pa.StructType) -> pa.StructArray:
    """A field for each label; null where there is no P."""
    columns = [pa.array(column, pa.float32()) for column in scores.T]
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=pa.array(~scored))


def listed_scores(scores: pa.StructArray) -> pa.ListArray:
    """P by label as a list, in the order of the labels: what the named ones were made of."""
    scored = scores.is_valid().to_numpy(zero_copy_only=False)
    columns = [scores.field(label.name).to_numpy(zero_copy_only=False) for label in scores.type]
    table = np.stack(columns, axis=1)[scored]
    ends = np.cumsum(np.concatenate([[0], scored])) * table.shape[1]
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()),
        pa.array(table.ravel(), pa.float32()),
        type=VERDICT.field("scores").type,
        mask=pa.array(~scored),
    )


def _unless_same(answer: pa.Array, label: pa.Array) -> pa.Array:
    """The label that the model wrote, null where it is the one that was decided for."""
    return pc.if_else(pc.fill_null(pc.equal(answer, label), False), None, answer)


def _audit(audit: pa.StructArray, rule: DecisionRule) -> pa.StructArray:
    """What an earlier judge says under the present threshold; without a probability: safe."""
    probability = audit.field("probability")
    violates = rule.violates(probability.to_numpy(zero_copy_only=False))
    return pa.StructArray.from_arrays(
        [audit.field("judge"), pa.array(violates, pa.bool_()), probability],
        fields=list(AUDIT),
        mask=audit.is_null(),
    )


def _reasoning_kept(decided: Mapping[str, pa.Array], reasoning: str) -> pa.Array | pa.Scalar:
    if reasoning == "flagged":
        return pc.or_(pc.fill_null(decided["violates"], False), decided["audit"].is_valid())
    return pa.scalar(reasoning == "all")


def verdicts(decisions: pa.StructArray) -> pa.StructArray:
    """What was found out, without what a threshold made of it: structs of `verdicts.VERDICT`.

    Where a person decided, what the judges said before. Where nobody else had been asked, the
    verdict is the person's: its label without a score.
    """
    columns = {field.name: trace(decisions, field.name) for field in VERDICT if _is_traced(field)}
    columns |= {name: judged_field(decisions, name) for name in ("status", "decided_by")}
    columns |= {"rationale": judged_field(decisions, "rationale")}
    columns |= {"reasoning": decisions.field("reasoning"), "scores": _judged_scores(decisions)}
    columns["answer"] = pc.coalesce(columns["answer"], judged_field(decisions, "label"))
    return struct_of(VERDICTS, columns)


def _is_traced(field: pa.Field) -> bool:
    return bool(TRACE.get_field_index(field.name) >= 0)


def _judged_scores(decisions: pa.StructArray) -> pa.ListArray:
    """P by label as the judges gave it, as a list."""
    scores, overruled = listed_scores(decisions.field("scores")), trace(decisions, "overruled")
    if overruled.null_count == len(overruled):
        return scores
    return pc.if_else(overruled.is_valid(), overruled.field("scores"), scores)


def flagged(decisions: Sequence[pa.StructArray]) -> pa.Array:
    """Kleene's "or" over a row's policies.

    True: some policy violated; false: all judged, none violated; null: not known.
    """
    result = decisions[0].field("violates")
    for decision in decisions[1:]:
        result = pc.or_kleene(result, decision.field("violates"))
    return result


def summary(decisions: pa.StructArray) -> dict[str, int]:
    """Counts for markers, manifest and progress.

    Rows by status, flagged, forced, duplicates, reused, and tokens; and by judge:

    - `settled.<judge>`: what it settled, and what people did (`human`)
    - `corrected.<judge>`: what people decided after it
    - `reversed.<judge>`: of that, where it had said the other side
    - `audited.<judge>`: what of that was audited
    - `overruled.<judge>`: what the audit decided otherwise
    - `missed.<judge>`: of these, the violations that it took for safe
    """
    statuses = _counts(decisions.field("status"))
    origins, judges = (_counts(trace(decisions, name)) for name in ("origin", "decided_by"))
    return {
        **{status.value: statuses.get(status.value, 0) for status in Status},
        "flagged": _total(decisions.field("violates")),
        "forced": _total(trace(decisions, "forced")),
        "unexplained": _total(_unexplained(decisions)),
        "duplicates": origins.get(Origin.DUPLICATE.value, 0),
        "reused": origins.get(Origin.REUSED.value, 0),
        "prompt_tokens": _total(trace(decisions, "prompt_tokens")),
        "output_tokens": _total(trace(decisions, "output_tokens")),
        **{f"settled.{judge}": count for judge, count in judges.items() if judge is not None},
        **_corrections(decisions),
        **_audits(decisions),
    }


def _corrections(decisions: pa.StructArray) -> dict[str, int]:
    overruled = trace(decisions, "overruled")
    if overruled.null_count == len(overruled):
        return {}
    by_people = decisions.filter(overruled.is_valid())
    before = trace(by_people, "overruled")
    judge = before.field("decided_by")
    other_side = pc.not_equal(before.field("violates"), by_people.field("violates"))
    chosen = {"corrected": judge, "reversed": judge.filter(other_side)}
    return {
        f"{name}.{judge_name}": count
        for name, column in chosen.items()
        for judge_name, count in _counts(column).items()
        if judge_name is not None
    }


def _unexplained(decisions: pa.StructArray) -> pa.Array:
    """Rows that `reason` flagged of its own accord, without a rationale."""
    by_reason = pc.equal(trace(decisions, "decided_by"), "reason")
    of_itself = pc.and_(by_reason, pc.invert(trace(decisions, "forced")))
    return pc.and_(
        pc.and_(decisions.field("violates"), of_itself), decisions.field("rationale").is_null()
    )


def distribution(decisions: pa.StructArray) -> dict[str, int]:
    """Counts in which a trend is seen.

    - `label.<label>`: rows by label
    - `p.<bin>`: rows by bin of P(violates), see `EDGES`
    - `reason.<status>: <detail>`: failed rows by reason, its numbers left out
    """
    labels = _counts(decisions.field("label"))
    probability = decisions.field("probability").drop_null().to_numpy()
    bins = np.bincount(np.searchsorted(EDGES, probability, side="right"), minlength=len(EDGES) + 1)
    failed = decisions.filter(pc.is_in(decisions.field("status"), pa.array(RETRYABLE)))
    reasons = _counts(_reasons(failed.field("status"), trace(failed, "detail")))
    return {
        **{f"label.{label}": count for label, count in labels.items() if label is not None},
        **{f"p.{number}": int(count) for number, count in enumerate(bins) if count},
        **commonest({f"reason.{reason}": count for reason, count in reasons.items()}),
    }


def _reasons(status: pa.StringArray, detail: pa.StringArray) -> pa.StringArray:
    """Why rows failed, in a form that many of them share."""
    # What did not parse is a text of the model's, another one each time.
    unparsed = pc.equal(status, Status.UNPARSED.value)
    detail = pc.if_else(unparsed, "the answer is of no valid form", detail)
    detail = pc.utf8_slice_codeunits(pc.fill_null(detail, "no reason given"), 0, REASON_CHARS)
    detail = pc.replace_substring_regex(detail, r"\d+", "#")
    return pc.binary_join_element_wise(status, detail, ": ")


def commonest(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts with the `MOST_REASONS` most frequent reasons only: there may be one a row."""
    reasons = sorted(
        (name for name in counts if name.startswith("reason.")), key=lambda name: -counts[name]
    )
    rare = set(reasons[MOST_REASONS:])
    return {name: count for name, count in counts.items() if name not in rare}


def _audits(decisions: pa.StructArray) -> dict[str, int]:
    # A content counts once, or its copies would pass for evidence.
    once = pc.fill_null(pc.not_equal(trace(decisions, "origin"), Origin.DUPLICATE.value), False)
    audited = decisions.filter(pc.and_(trace(decisions, "audit").is_valid(), once))
    earlier = trace(audited, "audit")
    judge = earlier.field("judge")
    # What the last judge said: a person who overrules it says nothing of the earlier one's promise.
    violates = judged_field(audited, "violates")
    overruled = pc.not_equal(earlier.field("violates"), violates)
    chosen = {
        "audited": judge,
        "overruled": judge.filter(overruled),
        "missed": judge.filter(pc.and_(overruled, violates)),
    }
    return {
        f"{name}.{judge_name}": count
        for name, column in chosen.items()
        for judge_name, count in _counts(column).items()
    }


def _counts(column: pa.Array) -> dict[str | None, int]:
    return {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}


def _total(column: pa.Array) -> int:
    return pc.sum(column).as_py() or 0
