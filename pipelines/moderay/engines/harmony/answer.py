"""Output token ids -> answer, strictly.

That is exactly one final channel with one allowed label, or nothing. Whatever is damaged (cut off,
a broken header, no channel, two finals, a label that is none of the policy's) has no answer, and
its judge asks again. A label is never guessed from the reasoning.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.config.policy import Policy
from moderay.engines.harmony.vocabulary import (
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
    Vocabulary,
)

# How a rationale answer begins; what is opened when a label is asked for.
RATIONALE_OPENED = '{"label": "'
RATIONALE_CLOSED = '", "rationale": "'
# Spellings of roles and channels that are known again.
HELD_WORDS = 64


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the assistant.

    Attributes:
        channel: analysis or final.
        start: Where its body starts in the output, in tokens.
        end: Where its body ends.
        closed: Whether it is not cut off.
    """

    channel: str
    start: int
    end: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A well-formed answer.

    Attributes:
        label: One of the policy's.
        rationale: None where the policy asks for the label alone.
        reasoning: The text of the analysis channel.
        final: Where the final channel's body starts in the output, in tokens.
    """

    label: str
    rationale: str | None
    reasoning: str
    final: int


def parse(tokens: Sequence[int], policy: Policy, vocab: Vocabulary) -> Answer | None:
    """The answer in an output, or None; never raises.

    Args:
        tokens: Ids after `<|start|>assistant`, the stop token included.
        policy: Its labels, and how the answer is written.
        vocab: The model's.
    """
    parts = messages(tokens, vocab)
    if parts is None or not all(message.closed for message in parts):
        return None
    finals = [message for message in parts if message.channel == "final"]
    if (
        len(finals) != 1
        or finals[0] is not parts[-1]
        or tokens[finals[0].end] != vocab.control[RETURN]
    ):
        return None
    read = read_answer(vocab.decode(tokens[finals[0].start : finals[0].end]), policy)
    if read is None:
        return None
    label, rationale = read
    return Answer(label, rationale, reasoning(tokens, parts, vocab), finals[0].start)


def read_answer(text: str, policy: Policy) -> tuple[str, str | None] | None:
    """Label and rationale of a final channel's text in the policy's form, or None."""
    text = text.strip()
    if policy.answer == "label":
        return (text, None) if text in policy.labels else None
    read = _object(text)
    label, rationale = read.get("label"), read.get("rationale")
    if isinstance(label, int) and not isinstance(label, bool):  # {"label": 1} for the binary form
        label = str(label)
    if not isinstance(label, str) or label not in policy.labels or not isinstance(rationale, str):
        return None
    return label, rationale.encode("utf-8", "replace").decode("utf-8")


def read_label(text: str, policy: Policy) -> str | None:
    """The label of an answer in JSON with nothing else in it.

    It may be cut off behind the label: white space without end is JSON too.
    """
    match = re.match(r'\s*\{\s*"label"\s*:\s*"([^"]*)"', text)
    return match[1] if match and match[1] in policy.labels else None


def messages(tokens: Sequence[int], vocab: Vocabulary) -> list[Message] | None:
    """The messages of an output, the last one perhaps cut off; None where the format is broken."""
    names = _names(vocab)
    parts: list[Message] = []
    position = 0
    while position < len(tokens):
        message = _message(tokens, position, names, vocab, first=not parts)
        if message is None:
            return None
        parts.append(message)
        if not message.closed:
            return parts
        position = message.end + 1
        if names[tokens[message.end]] == RETURN:
            return parts if position == len(tokens) else None
    return parts


def _message(
    tokens: Sequence[int],
    position: int,
    names: Mapping[int, str],
    vocab: Vocabulary,
    *,
    first: bool,
) -> Message | None:
    """The message that opens at a position; a later one opens with `<|start|>assistant`."""
    if not first:
        body = _until_control(tokens, position + 1, names)
        if (
            names.get(tokens[position]) != START
            or _word(vocab, tuple(tokens[position + 1 : body])) != "assistant"
        ):
            return None
        position = body
    if position >= len(tokens) or names.get(tokens[position]) != CHANNEL:
        return None
    header = _header(tokens, position + 1, names, vocab)
    if header is None:
        return None
    channel, start = header
    end = _until_control(tokens, start, names)
    closed = end < len(tokens)
    if closed and names[tokens[end]] not in (END, RETURN):
        return None
    return Message(channel, start, end, closed)


def reasoning(tokens: Sequence[int], parts: Sequence[Message], vocab: Vocabulary) -> str:
    """The text of the analysis channel."""
    return "\n".join(
        vocab.decode(tokens[message.start : message.end])
        for message in parts
        if message.channel == "analysis"
    )


def label_openings(policy: Policy, vocab: Vocabulary) -> dict[str, list[int]]:
    """For each label the ids of a final channel's body that gives it.

    They go up to where it cannot be mistaken for another.
    """
    if policy.answer == "label":
        return {name: [*vocab.encode(name), vocab.control[RETURN]] for name in policy.labels}
    return {
        name: vocab.encode(RATIONALE_OPENED + name + RATIONALE_CLOSED) for name in policy.labels
    }


def _header(
    tokens: Sequence[int], position: int, names: Mapping[int, str], vocab: Vocabulary
) -> tuple[str, int] | None:
    """The channel, and where its body starts.

    It is spelled `analysis<|message|>` or `final[ <|constrain|>json]<|message|>`.
    """
    end = _until_control(tokens, position, names)
    channel = _word(vocab, tuple(tokens[position:end])).strip()
    if end < len(tokens) and names[tokens[end]] == CONSTRAIN and channel == "final":
        end = _until_control(tokens, end + 1, names)
    if end == len(tokens) or names[tokens[end]] != MESSAGE or channel not in ("analysis", "final"):
        return None
    return channel, end + 1


def _until_control(tokens: Sequence[int], position: int, names: Mapping[int, str]) -> int:
    for at in range(position, len(tokens)):
        if tokens[at] in names:
            return at
    return len(tokens)


@functools.lru_cache(HELD_WORDS)
def _names(vocab: Vocabulary) -> Mapping[int, str]:
    """Id -> spelling of each harmony control token."""
    return {token: name for name, token in vocab.control.items()}


@functools.lru_cache(HELD_WORDS)
def _word(vocab: Vocabulary, ids: tuple[int, ...]) -> str:
    """A role or a channel; they are the same few in nearly all outputs."""
    return vocab.decode(ids)


def _object(text: str) -> dict[str, object]:
    """A JSON object; an empty one for any other text."""
    try:
        read = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON objects without repeated keys: of two labels neither counts."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("repeated key")
    return dict(pairs)
