"""Verdict x threshold -> decision; pure, columns in and columns out, re-done at any time without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.policy import Policy
from moderay.records import AUDIT, DECISION, VERDICT, Origin, Status


def decide(verdicts: pa.StructArray, policy: Policy, reasoning: str = "all") -> pa.StructArray:
    """Verdict structs of one policy -> structs of `records.DECISION`.

    `violates` is P(violates) >= the policy's threshold, `label` the likeliest label on that side, and `answer` is kept
    only where the model wrote another one. All three are null where there are no scores: not judged is never safe.
    `reasoning` says whose reasoning is kept: all | flagged | none.
    """
    column = {name: verdicts.field(name) for name in VERDICT.names}
    known = pc.is_valid(column["scores"]).to_numpy(zero_copy_only=False)
    probability, violates, label = _from_scores(column["scores"], known, policy)
    missing = ~known
    decided = column | {
        "probability": pa.array(probability, pa.float32(), mask=missing),
        "violates": pa.array(violates, pa.bool_(), mask=missing),
        "label": pa.array(label, pa.string(), mask=missing),
        "audit": pa.nulls(len(verdicts), AUDIT),
    }
    same = pc.fill_null(pc.equal(decided["answer"], decided["label"]), False)
    decided["answer"] = pc.if_else(same, None, decided["answer"])
    if reasoning != "all":
        keep = pc.fill_null(decided["violates"], False) if reasoning == "flagged" else pa.scalar(False)
        decided["reasoning"] = pc.if_else(keep, decided["reasoning"], None)
    return pa.StructArray.from_arrays([decided[field.name] for field in DECISION], fields=list(DECISION))


def verdicts(decisions: pa.StructArray) -> pa.StructArray:
    """What was found out, without what a threshold made of it: structs of `records.VERDICT`."""
    written = pc.coalesce(decisions.field("answer"), decisions.field("label"))
    columns = [written if name == "answer" else decisions.field(name) for name in VERDICT.names]
    return pa.StructArray.from_arrays(columns, fields=list(VERDICT))


def redecide(decisions: pa.StructArray, policy: Policy) -> pa.StructArray:
    """The same verdicts under the policy's present threshold. Reasoning stays as it was stored."""
    return decide(verdicts(decisions), policy)


def flagged(decisions: Sequence[pa.StructArray]) -> pa.Array:
    """True: some policy violated; false: all judged, none violated; null: not known. (Kleene's "or".)"""
    result = decisions[0].field("violates")
    for decision in decisions[1:]:
        result = pc.or_kleene(result, decision.field("violates"))
    return result


def summary(decisions: pa.StructArray) -> dict[str, int]:
    """Counts for markers, manifest and progress: rows by status, flagged, forced, reused, and tokens."""
    statuses = {item["values"]: item["counts"] for item in decisions.field("status").value_counts().to_pylist()}
    return {
        **{status.value: statuses.get(status.value, 0) for status in Status},
        "flagged": pc.sum(decisions.field("violates")).as_py() or 0,
        "forced": pc.sum(decisions.field("forced")).as_py() or 0,
        "reused": pc.sum(pc.equal(decisions.field("origin"), Origin.REUSED.value)).as_py() or 0,
        "prompt_tokens": pc.sum(decisions.field("prompt_tokens")).as_py() or 0,
        "output_tokens": pc.sum(decisions.field("output_tokens")).as_py() or 0,
    }


def _from_scores(scores: pa.ListArray, known: np.ndarray, policy: Policy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P(violates) float32, violates bool, label object; arbitrary where not `known`."""
    names = np.array(policy.label_names, dtype=object)
    bad = np.array(policy.violating)
    table = np.zeros((len(scores), len(names)), dtype=np.float32)
    table[known] = scores.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
    # Rounding must not make a certain verdict fall short of a threshold of 1.
    probability = np.where(table[:, ~bad].sum(axis=1) == 0, np.float32(1), np.clip(table[:, bad].sum(axis=1), 0, 1)).astype(np.float32)
    violates = probability >= np.float32(policy.threshold)
    on_side = np.where(bad[None, :] == violates[:, None], table, -1.0)
    return probability, violates, names[on_side.argmax(axis=1)]
