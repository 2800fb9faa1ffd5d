"""The card of exported conversations: Markdown with YAML front matter, as the hubs read it."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import DatasetCardData

from moderay.tasks.export.records import SftRecord

_BALANCE = {
    "weights": "In the column `weight`, so that each side of each policy counts the same; on "
    "average it is 1.",
    "sample": "By sampling: of the larger side of each policy as many conversations are in `train` "
    "as of the smaller one, those with the smallest content hashes.",
    "none": "Not at all.",
}
_GOLDEN = {
    "test": "Golden cases are in `test` alone, so that what is trained on these data can still be "
    "measured with the policies' golden sets.",
    "train": "Golden cases are split like all others. **What is trained on these data must not be "
    "measured with the policies' golden sets any more**, nor let through their gate.",
    "none": "Golden cases are in no part.",
}
_LEFT_OUT = {
    "void": "were reviewed under another text of the policy",
    "disputed": "are disputed: as many people said one side as the other",
    "missing": "are no longer to be had where they were reviewed",
    "empty": "hold no text",
    "long": "are judged in several windows",
    "golden": "are like a golden case, which no part but `test` may hold",
    "sampled": "were left out to balance the sides",
}
_COLUMNS = {
    "policy": "id of the policy",
    "content_hash": "of the content, as in the labels",
    "split": "train, validation or test",
    "label": "what people said",
    "violates": "whether that label violates the policy",
    "source": "`review` or `golden`",
    "has_reasoning": "whether the completion holds the reasoning of a verdict that people "
    "confirmed; a corrected verdict's is never here",
    "whole": "whether the answer is there to its end; where nobody gave a rationale it ends behind "
    "the label",
    "weight": "see above",
    "prompt_ids": "what the model is given, token for token as moderay asks it",
    "completion_ids": "what it should answer",
    "input_ids": "both, one behind the other",
    "completion_mask": "parallel to `input_ids`: 1 where a token is to be learned",
    "messages": "the same, for trainers with a chat template of gpt-oss; `thinking` is the "
    "reasoning",
    "text": "the ids decoded",
    "text_is_exact": "false where something in the content is spelled like a control token: of "
    "`text` and `messages` a tokeniser then makes other ids, so take the ids",
}


def sft_card(record: SftRecord) -> str:
    """The text of README.md."""
    data = DatasetCardData(
        pretty_name=f"{record.name}: what people decided",
        tags=["content-moderation", *sorted(record.policies)],
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": part, "path": f"{part}.parquet"}
                    for part, rows in record.rows.items()
                    if rows
                ],
            }
        ],
    )
    body = "\n".join(_body(record))
    return f"---\n{data.to_yaml()}\n---\n{body}\n"


def _body(record: SftRecord) -> Iterator[str]:
    yield f"# {record.name}: what people decided\n"
    yield (
        "Conversations in harmony to train a safety reasoner on: a policy, a content, and the "
        "answer that people decided on.\n"
    )
    yield f"Token ids of the vocabulary `{_name(record.vocabulary)}`; effort {record.effort}.\n"
    yield "| policy | part | violating | safe | reviews | golden | with reasoning |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for name, policy in record.policies.items():
        for part, counts in policy.parts.items():
            yield (
                f"| {name} | {part} | {counts.violating:,} | {counts.safe:,} | {counts.reviews:,} "
                f"| {counts.golden:,} | {counts.with_reasoning:,} |"
            )
    yield "\n## How it was made\n"
    yield f"- Balanced: {_BALANCE[record.balance]}"
    yield f"- {_GOLDEN[record.golden]}"
    yield (
        "- Split by content: texts that differ in case, marks, blanks and numbers alone are in the "
        "same part, under all policies. Each content is here once for each policy."
    )
    for name, policy in record.policies.items():
        if policy.golden_cases is None:
            yield f"- The golden set of {name} was not looked at: it may be in any part."
    for reason, count in record.left_out.items():
        yield f"- Left out: {count:,} that {_LEFT_OUT[reason]}."
    yield "\n## Columns\n"
    yield "| column | what it is |\n|---|---|"
    for name, meaning in _COLUMNS.items():
        yield f"| `{name}` | {meaning} |"
    for name, policy in record.policies.items():
        yield f"\n## {policy.title or name}\n"
        yield f"`{name}`, version {policy.version}.\n"
        text = policy.instructions.replace("```", "'''")
        yield f"```markdown\n{text}\n```"


def _name(source: str) -> str:
    """A folder's name, and not where somebody keeps it."""
    return source.rstrip("/").rpartition("/")[2] if source.startswith("/") else source
