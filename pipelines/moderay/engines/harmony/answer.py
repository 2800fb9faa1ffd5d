"""Output token ids -> answer, strictly: exactly one final channel with one allowed label, or
nothing.

Whatever is damaged (cut off, a broken header, no channel, two finals, a label that is none of the
policy's) has no answer, and its judge asks again. A label is never guessed from the reasoning.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.config.policy import Policy
from moderay.engines.base import Token
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


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the assistant: its channel and the tokens of its body, `start` to `end` of the
    output.
    """

    channel: str
    start: int
    end: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A well-formed answer. `label` is one of the policy's; `final` is where the final channel's
    body starts.
    """

    label: str
    rationale: str | None
    reasoning: str
    final: int


def parse(tokens: Sequence[int], policy: Policy, vocab: Vocabulary) -> Answer | None:
    """The answer in an output (ids after `<|start|>assistant`, the stop token included), or None.
    Never raises.
    """
    found = messages(tokens, vocab)
    if found is None or not all(message.closed for message in found):
        return None
    finals = [message for message in found if message.channel == "final"]
    if (
        len(finals) != 1
        or finals[0] is not found[-1]
        or tokens[finals[0].end] != vocab.control[RETURN]
    ):
        return None
    read = read_answer(vocab.decode(tokens[finals[0].start : finals[0].end]), policy)
    if read is None:
        return None
    label, rationale = read
    return Answer(label, rationale, reasoning(tokens, found, vocab), finals[0].start)


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
    """The label of an answer that was asked for as JSON with nothing else in it. It may be cut off
    behind the label: white space without end is JSON too.
    """
    found = re.match(r'\s*\{\s*"label"\s*:\s*"([^"]*)"', text)
    return found[1] if found and found[1] in policy.labels else None


def label_scores(tokens: Sequence[Token], label: str, policy: Policy) -> list[float] | None:
    """P of each label in the policy's order, from the tokens of an answer that names `label`; they
    add up to 1. None without tokens.

    At every token of the label as it was written, the likeliest others in its place say how likely
    it was that another label began there. A label that is not among them has P 0; two that part
    only behind such a token share its P.
    """
    text = "".join(token.text for token in tokens)
    opened = re.search(r'"label"\s*:\s*"?', text)
    at, end = (opened.end(), '"') if opened else (len(text) - len(text.lstrip()), "")
    if not text.startswith(label, at):
        return None
    scores, left, weight, offset = (
        dict.fromkeys(policy.label_names, 0.0),
        {name: name + end for name in policy.label_names},
        1.0,
        0,
    )
    for token in tokens:
        before, offset = text[offset:at] if offset < at else "", offset + len(token.text)
        if offset <= at or len(left) == 1:
            continue
        taken, said = (
            _named(token.text.removeprefix(before), left),
            {token.text: 0.0, **token.logprobs},
        )
        shares = dict.fromkeys(left, 0.0)
        for spelled, logprob in said.items():
            names = _named(spelled.removeprefix(before), left) if spelled.startswith(before) else []
            for name in names:
                shares[name] += math.exp(logprob) / len(names)
        here, total = sum(shares[name] for name in taken), sum(shares.values())
        scores |= {
            name: weight * share / total for name, share in shares.items() if name not in taken
        }
        weight *= here / total
        left = {name: left[name][len(token.text.removeprefix(before)) :] for name in taken}
    return [
        {**scores, **{name: weight / len(left) for name in left}}[name]
        for name in policy.label_names
    ]


def _named(spelled: str, left: Mapping[str, str]) -> list[str]:
    """Whose rest a token may begin."""
    return [
        name
        for name, rest in left.items()
        if spelled and (rest.startswith(spelled) or spelled.startswith(rest))
    ]


def messages(tokens: Sequence[int], vocab: Vocabulary) -> list[Message] | None:
    """The messages of an output, the last one perhaps cut off; None where the format is broken."""
    control = vocab.control
    names = {token: name for name, token in control.items()}
    found: list[Message] = []
    position = 0
    while position < len(tokens):
        if found:  # a later message opens with <|start|>assistant
            body = _until_control(tokens, position + 1, names)
            if (
                tokens[position] != control[START]
                or vocab.decode(tokens[position + 1 : body]) != "assistant"
            ):
                return None
            position = body
        if position >= len(tokens) or tokens[position] != control[CHANNEL]:
            return None
        header = _header(tokens, position + 1, names, vocab)
        if header is None:
            return None
        channel, start = header
        end = _until_control(tokens, start, names)
        if end == len(tokens):
            return [*found, Message(channel, start, end, closed=False)]
        if names[tokens[end]] not in (END, RETURN):
            return None
        found.append(Message(channel, start, end, closed=True))
        position = end + 1
        if names[tokens[end]] == RETURN:
            return found if position == len(tokens) else None
    return found


def reasoning(tokens: Sequence[int], found: Sequence[Message], vocab: Vocabulary) -> str:
    """The text of the analysis channel."""
    return "\n".join(
        vocab.decode(tokens[message.start : message.end])
        for message in found
        if message.channel == "analysis"
    )


def label_openings(policy: Policy, vocab: Vocabulary) -> dict[str, list[int]]:
    """For each label the ids of a final channel's body that gives it, up to where it cannot be
    mistaken for another.
    """
    if policy.answer == "label":
        return {name: [*vocab.encode(name), vocab.control[RETURN]] for name in policy.labels}
    return {
        name: vocab.encode(RATIONALE_OPENED + name + RATIONALE_CLOSED) for name in policy.labels
    }


def _header(
    tokens: Sequence[int], position: int, names: Mapping[int, str], vocab: Vocabulary
) -> tuple[str, int] | None:
    """`analysis<|message|>` or `final[ <|constrain|>json]<|message|>`: the channel, and where its
    body starts.
    """
    end = _until_control(tokens, position, names)
    channel = vocab.decode(tokens[position:end]).strip()
    if end < len(tokens) and names[tokens[end]] == CONSTRAIN and channel == "final":
        end = _until_control(tokens, end + 1, names)
    if end == len(tokens) or names[tokens[end]] != MESSAGE or channel not in ("analysis", "final"):
        return None
    return channel, end + 1


def _until_control(tokens: Sequence[int], position: int, names: Mapping[int, str]) -> int:
    while position < len(tokens) and tokens[position] not in names:
        position += 1
    return position


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
