"""Verdict x threshold -> decision; pure, columns in and columns out, re-done at any time without a
model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.policy import Policy
from moderay.core.verdicts import AUDIT, DECISION, RETRYABLE, VERDICT, Origin, Status

# Bins of P(violates): most contents are nearly sure, and there a shift is seen first.
EDGES = np.array(
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999], np.float32
)
# Of a failed row's reason; and how many reasons are counted.
REASON_CHARS, MOST_REASONS = 80, 20


def decide(verdicts: pa.StructArray, policy: Policy, reasoning: str = "all") -> pa.StructArray:
    """Verdict structs of one policy -> structs of `verdicts.DECISION`.

    `violates` is P(violates) >= the policy's threshold, `label` the likeliest label on that side,
    and `answer` is kept only where the model wrote another one. Without scores, from an endpoint
    that gives none, the label is the one the model wrote, `violates` is that label's, and no
    threshold changes it. A screen settles only what does not violate: the mildest label. All three
    are null where there is no verdict: not judged is never safe. `reasoning` says whose reasoning
    is kept: all | flagged (and audited) | none.
    """
    column = {name: verdicts.field(name) for name in VERDICT.names}
    scored = column["scores"].is_valid().to_numpy(zero_copy_only=False)
    written = _written(column, policy)
    known = scored | (written >= 0)
    probability, violates, label = _from_scores(column["scores"], scored, written, policy)
    decided = column | {
        "probability": pa.array(probability, pa.float32(), mask=~scored),
        "violates": pa.array(violates, pa.bool_(), mask=~known),
        "label": pa.array(label, pa.string(), mask=~known),
        "audit": _audit(column["audit"], policy),
    }
    same = pc.fill_null(pc.equal(decided["answer"], decided["label"]), False)
    decided["answer"] = pc.if_else(same, None, decided["answer"])
    if reasoning != "all":
        kept = (
            pc.or_(pc.fill_null(decided["violates"], False), decided["audit"].is_valid())
            if reasoning == "flagged"
            else pa.scalar(False)
        )
        decided["reasoning"] = pc.if_else(kept, decided["reasoning"], None)
    return pa.StructArray.from_arrays(
        [decided[field.name] for field in DECISION], fields=list(DECISION)
    )


def _written(column: Mapping[str, pa.Array], policy: Policy) -> np.ndarray:
    """Which label an answer without scores names, by its place among the policy's; -1 where none
    does.
    """
    mildest = policy.label_names[int(np.argmin(policy.violating))]
    said = pc.if_else(
        pc.fill_null(pc.equal(column["decided_by"], "screen"), False), mildest, column["answer"]
    )
    judged = pc.if_else(pc.equal(column["status"], Status.OK.value), said, None)
    return np.asarray(
        pc.fill_null(pc.index_in(judged, pa.array(policy.label_names)), -1).to_numpy(
            zero_copy_only=False
        )
    )


def _audit(audit: pa.StructArray, policy: Policy) -> pa.StructArray:
    """What an earlier judge said, under the policy's present threshold; one that gives no
    probability said: safe.
    """
    probability = audit.field("probability")
    violates = pc.fill_null(
        pc.greater_equal(probability, pa.scalar(policy.threshold, pa.float32())), False
    )
    return pa.StructArray.from_arrays(
        [audit.field("judge"), violates, probability], fields=list(AUDIT), mask=audit.is_null()
    )


def verdicts(decisions: pa.StructArray) -> pa.StructArray:
    """What was found out, without what a threshold made of it: structs of `verdicts.VERDICT`."""
    written = pc.coalesce(decisions.field("answer"), decisions.field("label"))
    columns = [written if name == "answer" else decisions.field(name) for name in VERDICT.names]
    return pa.StructArray.from_arrays(columns, fields=list(VERDICT))


def redecide(decisions: pa.StructArray, policy: Policy) -> pa.StructArray:
    """The same verdicts under the policy's present threshold. Reasoning stays as it was stored."""
    return decide(verdicts(decisions), policy)


def flagged(decisions: Sequence[pa.StructArray]) -> pa.Array:
    """True: some policy violated; false: all judged, none violated; null: not known. (Kleene's
    "or".)
    """
    result = decisions[0].field("violates")
    for decision in decisions[1:]:
        result = pc.or_kleene(result, decision.field("violates"))
    return result


def summary(decisions: pa.StructArray) -> dict[str, int]:
    """Counts for markers, manifest and progress: rows by status, flagged, forced, duplicates,
    reused, and tokens; and by judge what it settled, what of it was audited, and what the audit
    said otherwise of (`overruled`; of these `missed` are the violations that it took for safe).
    """
    statuses, origins, judges = (
        _counts(decisions.field(name)) for name in ("status", "origin", "decided_by")
    )
    return {
        **{status.value: statuses.get(status.value, 0) for status in Status},
        "flagged": _total(decisions.field("violates")),
        "forced": _total(decisions.field("forced")),
        "duplicates": origins.get(Origin.DUPLICATE.value, 0),
        "reused": origins.get(Origin.REUSED.value, 0),
        "prompt_tokens": _total(decisions.field("prompt_tokens")),
        "output_tokens": _total(decisions.field("output_tokens")),
        **{f"settled.{judge}": count for judge, count in judges.items() if judge is not None},
        **_audits(decisions),
    }


def distribution(decisions: pa.StructArray) -> dict[str, int]:
    """Counts in which a trend is seen: rows by label, by bin of P(violates) (`p.<bin>`, see
    `EDGES`), and failed rows by reason, its numbers left out.
    """
    labels, probability = (
        _counts(decisions.field("label")),
        decisions.field("probability").drop_null().to_numpy(),
    )
    bins = np.bincount(np.searchsorted(EDGES, probability, side="right"), minlength=len(EDGES) + 1)
    failed = decisions.filter(pc.is_in(decisions.field("status"), pa.array(RETRYABLE)))
    # What did not parse is a text of the model's, another one each time.
    said = pc.if_else(
        pc.equal(failed.field("status"), Status.UNPARSED.value),
        "the answer is of no valid form",
        failed.field("detail"),
    )
    detail = pc.utf8_slice_codeunits(pc.fill_null(said, "no reason given"), 0, REASON_CHARS)
    reasons = _counts(
        pc.binary_join_element_wise(
            failed.field("status"), pc.replace_substring_regex(detail, r"\d+", "#"), ": "
        )
    )
    return {
        **{f"label.{label}": count for label, count in labels.items() if label is not None},
        **{f"p.{number}": int(count) for number, count in enumerate(bins) if count},
        **commonest({f"reason.{reason}": count for reason, count in reasons.items()}),
    }


def commonest(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts with the `MOST_REASONS` most frequent reasons only: there may be as many as there are
    rows.
    """
    reasons = sorted(
        (name for name in counts if name.startswith("reason.")), key=lambda name: -counts[name]
    )
    rare = set(reasons[MOST_REASONS:])
    return {name: count for name, count in counts.items() if name not in rare}


def _audits(decisions: pa.StructArray) -> dict[str, int]:
    # A content counts once, or its copies would pass for evidence.
    once = pc.fill_null(pc.not_equal(decisions.field("origin"), Origin.DUPLICATE.value), False)
    audited = decisions.filter(pc.and_(decisions.field("audit").is_valid(), once))
    judge, before, now = (
        audited.field("audit").field("judge"),
        audited.field("audit").field("violates"),
        audited.field("violates"),
    )
    overruled = pc.not_equal(before, now)
    chosen = {
        "audited": judge,
        "overruled": judge.filter(overruled),
        "missed": judge.filter(pc.and_(overruled, now)),
    }
    return {
        f"{name}.{by}": count
        for name, column in chosen.items()
        for by, count in _counts(column).items()
    }


def _counts(column: pa.Array) -> dict[str | None, int]:
    return {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}


def _total(column: pa.Array) -> int:
    return pc.sum(column).as_py() or 0


def _from_scores(
    scores: pa.ListArray, scored: np.ndarray, written: np.ndarray, policy: Policy
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(violates) float32, violates bool, label object; surely the `written` label where not
    `scored`.
    """
    names = np.array(policy.label_names, dtype=object)
    bad = np.array(policy.violating)
    table = np.zeros((len(scores), len(names)), dtype=np.float32)
    table[~scored, written[~scored]] = 1
    table[scored] = scores.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
    # Rounding must not make a certain verdict fall short of a threshold of 1.
    probability = np.where(
        table[:, ~bad].sum(axis=1) == 0, np.float32(1), np.clip(table[:, bad].sum(axis=1), 0, 1)
    ).astype(np.float32)
    violates = probability >= np.float32(policy.threshold)
    on_side = np.where(bad[None, :] == violates[:, None], table, -1.0)
    return probability, violates, names[on_side.argmax(axis=1)]
