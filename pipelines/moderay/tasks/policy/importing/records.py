"""Keys and values -> golden cases, by the names that such keys commonly have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moderay.core.errors import Problem
from moderay.core.wording import counted
from moderay.tasks.policy.importing.found import (
    Content,
    Found,
    FoundCase,
    PolicyText,
    label_name,
    not_placed,
)

# The first that a record has counts.
CONTENT_KEYS = tuple(
    "content prompt text input user_input message messages conversation turns comment_text comment "
    "post body question sentence example test_case".split()
)
LABEL_KEYS = tuple(
    "label labels gold gold_label expected expected_label expected_output target answer verdict "
    "category class classification label_gold violates violation is_violation "
    "flagged toxicity output".split()
)
_POLICY_KEYS = ("policy", "system", "system_prompt", "instructions")
_MORE = {
    "boundary": ("boundary",),
    "language": ("language", "lang"),
    "source": ("source",),
    "note": ("note", "notes", "rationale", "reason", "explanation"),
}
_POLICY_ROLES = ("system", "developer")
_LONGEST_LABEL = 60

# A record's file and line, and its keys and values.
Record = tuple[int, Mapping[str, Any]]


@dataclass(frozen=True)
class _Read:
    """A record's parts, or why it is no case."""

    content: Content = ""
    label: object = None
    policy: str = ""
    wrong: str = ""


def found_records(file: str, records: Iterable[Record]) -> Found:
    """The cases of one file.

    Args:
        file: Its name.
        records: Each with its line.

    Returns:
        Policy texts that stand in records are there once each; what no record's case takes is left,
        a key once for all records.
    """
    texts: dict[str, PolicyText] = {}
    cases: list[FoundCase] = []
    left: list[Problem] = []
    unknown: dict[str, list[int]] = {}
    for line, record in records:
        keys = {_plain(key): key for key in record}
        read = _read(record, keys)
        if read.policy:
            texts.setdefault(read.policy, PolicyText(file, line, read.policy))
        if read.wrong or not (label := label_name(read.label)):
            why = read.wrong or f"the label {str(read.label)[:_LONGEST_LABEL]!r} can be no name"
            left.append(not_placed(file, line, why))
            continue
        more = {name: value for name in _MORE if (value := _more(record, keys, name)) is not None}
        title = read.label.strip() if isinstance(read.label, str) else ""
        cases.append(FoundCase(file, line, read.content, label, title, more))
        for key in _unknown(keys):
            unknown.setdefault(key, []).append(line)
    for key, lines in unknown.items():
        left.append(not_placed(file, lines[0], f"{key!r}, in {counted(len(lines), 'case')}"))
    return Found([*texts.values()], cases, left)


def key_of(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """The first of the wanted keys among names in their plain form."""
    there = set(names)
    return next((name for name in wanted if name in there), None)


def is_case(record: object) -> bool:
    """Whether something is a record with a content and a label."""
    if not isinstance(record, dict):
        return False
    names = [_plain(key) for key in record]
    return bool(key_of(names, CONTENT_KEYS) and key_of(names, LABEL_KEYS))


def _plain(key: object) -> str:
    return str(key).strip().lower().replace(" ", "_").replace("-", "_")


def _read(record: Mapping[str, Any], keys: Mapping[str, str]) -> _Read:
    policy_key = key_of(keys, _POLICY_KEYS)
    policy = record[keys[policy_key]] if policy_key else ""
    policy = policy.strip() if isinstance(policy, str) else ""
    key = key_of(keys, CONTENT_KEYS)
    if key is None:
        return _Read(policy=policy, wrong=f"no content among the keys {', '.join(record)}")
    content = record[keys[key]]
    turns = _turns(content) if isinstance(content, list) else None
    if turns is None and not isinstance(content, str):
        return _Read(policy=policy, wrong=f"the {key} is neither a text nor a conversation")
    label_key = key_of(keys, [name for name in LABEL_KEYS if name != key])
    label = record[keys[label_key]] if label_key else None
    if turns is not None:
        content, label, policy = _conversation(turns, label, policy)
    if label is None or label == "":
        return _Read(policy=policy, wrong=f"no label among the keys {', '.join(record)}")
    if not content or (isinstance(content, str) and not content.strip()):
        return _Read(policy=policy, wrong="the content is empty")
    return _Read(content.strip() if isinstance(content, str) else content, label, policy)


def _turns(content: list[Any]) -> list[dict[str, str]] | None:
    """Turns with role and content, as most formats for conversations have them."""
    turns = []
    for turn in content:
        if not isinstance(turn, dict):
            return None
        role, said = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if isinstance(said, list):  # parts of a message
            parts = [part.get("text") if isinstance(part, dict) else None for part in said]
            said = "\n".join(part for part in parts if isinstance(part, str)) or None
        if not isinstance(role, str) or not role or not isinstance(said, str):
            return None
        turns.append({"role": role, "content": said})
    return turns


def _conversation(
    turns: list[dict[str, str]], label: object, policy: str
) -> tuple[Content, object, str]:
    """What is judged, its label and the policy, where turns hold all three.

    The system's turn is the policy; the assistant's last one is the label where there is none
    beside the turns and it is one word; a single turn that is left is a text.
    """
    if turns and turns[0]["role"] in _POLICY_ROLES:
        policy, turns = policy or turns[0]["content"].strip(), turns[1:]
    if label is None and turns and turns[-1]["role"] == "assistant":
        answer = turns[-1]["content"].strip()
        if answer and len(answer.split()) == 1:
            label, turns = answer, turns[:-1]
    return (turns[0]["content"] if len(turns) == 1 else turns), label, policy


def _more(record: Mapping[str, Any], keys: Mapping[str, str], name: str) -> object:
    """A case's further value; null where there is none of its type."""
    key = key_of(keys, _MORE[name])
    value = record[keys[key]] if key else None
    if name == "boundary":
        return value if isinstance(value, bool) else None
    return value.strip() if isinstance(value, str) and value.strip() else None


def _unknown(keys: Mapping[str, str]) -> list[str]:
    """Keys that a case does not take."""
    taken = {
        key_of(keys, CONTENT_KEYS),
        key_of(keys, [name for name in LABEL_KEYS if name != key_of(keys, CONTENT_KEYS)]),
        key_of(keys, _POLICY_KEYS),
        *(key_of(keys, names) for names in _MORE.values()),
    }
    return [written for name, written in keys.items() if name not in taken]
