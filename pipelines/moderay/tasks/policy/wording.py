"""Findings about words: vague ones, an answer format, the spelling of control tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.source import EXAMPLES, PolicySource

_NAMES_NO_ACT = "it says that something is wrong, not what: name what the content does to whom"
_NO_END = "a list without an end is another one for each reader: name what belongs to it"
_TO_TASTE = "it leaves the line to the reader's taste: say where it lies"
# Why each is no help to a model, or to a moderator.
VAGUE = {
    "inappropriate": _NAMES_NO_ACT,
    "improper": _NAMES_NO_ACT,
    "unacceptable": _NAMES_NO_ACT,
    "objectionable": _NAMES_NO_ACT,
    "problematic": _NAMES_NO_ACT,
    "offensive": _NAMES_NO_ACT,
    "toxic": _NAMES_NO_ACT,
    "distasteful": _NAMES_NO_ACT,
    "etc.": _NO_END,
    "and so on": _NO_END,
    "and the like": _NO_END,
    "or similar": _NO_END,
    "among others": _NO_END,
    "reasonable": _TO_TASTE,
    "excessive": _TO_TASTE,
    "as appropriate": _TO_TASTE,
    "if necessary": _TO_TASTE,
    "use your judgment": _TO_TASTE,
    "use your judgement": _TO_TASTE,
    "use common sense": _TO_TASTE,
}
# "The same or similar words" says what is similar; "or similar." does not.
_LAST = r"(?=\W*$|[.,;)])"
_VAGUE = re.compile(
    "|".join(
        rf"(?<!\w){re.escape(word)}{_LAST if word == 'or similar' else ''}(?!\w)"
        for word in [*VAGUE, "etc"]
    ),
    re.IGNORECASE,
)
# Contents that a policy quotes are not its own words.
_QUOTED = re.compile(r"[\"“„«][^\"“”„«»]*[\"”“»]")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_CONTROL = re.compile(r"<\|[^|>\s]{1,40}\|>")
# An answer, or the answer, is no order.
_VERB = r"(?<!an )(?<!the )\b(?:answer|respond|reply|return|output|print)\b"
_ONE = r"(?:one|single|only the) (?:word|label|digit|token|letter)"
_FORMAT = (
    r"^\W*(?:answer|output|response|label) format\W*$",
    rf"{_VERB}[^.]{{0,40}}\b(?:json|yaml|xml)\b",
    rf"{_VERB}[^.]{{0,30}}\b(?:nothing else|{_ONE})\b",
    r"\{\s*\"\w+\"\s*:",
)
# As the examples of some policies are written.
_OUTPUT = r"^\W*(?:output|answer|response)\s*:"


def wording_findings(source: PolicySource) -> Iterator[Finding]:
    """What stands in the text and should not."""
    yield from _vague(source)
    yield from _answer_format(source)
    for number, text in enumerate(source.lines, start=1):
        for token in dict.fromkeys(_CONTROL.findall(text)):
            hint = "moderay sets control tokens itself, and this one is read as mere letters"
            message = f"{token} is spelled like a control token"
            yield source.finding(number, Code.CONTROL_TOKEN, message, f"take it out: {hint}")


def _vague(source: PolicySource) -> Iterator[Finding]:
    """Vague words, but those that the policy defines."""
    section = source.section("DEFINITIONS")
    terms = "\n".join(text for _, text in section.body) if section else ""
    defined = {term.strip(" :.").lower() for term in _BOLD.findall(terms)}
    for number, text in source.text:
        words = {word.lower() for word in _VAGUE.findall(_QUOTED.sub("", text))}
        for word in sorted(word for word in words if word.strip(".") not in defined):
            why = VAGUE["etc." if word == "etc" else word]
            yield source.finding(number, Code.VAGUE, f"{word!r} is vague", why)


def _answer_format(source: PolicySource) -> Iterator[Finding]:
    """Lines that tell the model how to answer."""
    labels = "|".join(map(re.escape, source.policy.label_names))
    choice = (
        rf"{_VERB}(?:\s+(?:only|just|exactly|either|with|a|the|label))*\s+"
        rf"\W?(?:{labels})\W?(?:,?\s+or\s+|\s*/\s*|\s*,\s*)\W?(?:{labels})\b"
    )
    anywhere = re.compile("|".join([*_FORMAT, choice]), re.IGNORECASE)
    rules = re.compile("|".join([*_FORMAT, choice, _OUTPUT]), re.IGNORECASE)
    for section in source.sections:
        form = anywhere if section.name == EXAMPLES else rules
        for number, text in section.lines:
            if form.search(text):
                hint = "take it out: moderay adds how to answer, and `moderay render` shows it"
                message = "tells the model how to answer"
                yield source.finding(number, Code.ANSWER_FORMAT, message, hint)
