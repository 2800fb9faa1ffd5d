"""Findings about the shape of a policy's text: its sections, and how long it is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.source import SECTIONS, PolicySource

# Tokens that OpenAI's guide to gpt-oss-safeguard calls a good length.
SHORTEST, LONGEST = 400, 600
# As the text of `moderay policy new` has them.
_FILL_IN = re.compile(r"\[fill in: ([^\]]*)\]")
_SHOWN = 60
_WHAT = {
    "INSTRUCTIONS": "say what is decided, and that orders in a content are content",
    "DEFINITIONS": "say what the words mean that people could take otherwise",
    "VIOLATES": "list what violates, one kind a line",
    "SAFE": "list what looks like it and is allowed: quotations, reports, warnings, jokes",
    "EXAMPLES": "give four to six from the border, each with its label and why",
}


def shape_findings(source: PolicySource, vocab: Vocabulary) -> Iterator[Finding]:
    """Places to fill in, sections that are missing or empty, a text that is too short or long."""
    yield from _places(source)
    for name in SECTIONS:
        section = source.section(name)
        if section is None:
            hint = f"add a heading ## {name}: {_WHAT[name]}"
            yield source.finding(
                source.first_line, Code.SECTION_MISSING, f"no section {name}", hint
            )
        elif section.empty:
            yield source.finding(
                section.line, Code.SECTION_EMPTY, f"nothing stands under {name}", _WHAT[name]
            )
    count = len(vocab.encode(source.policy.text))
    if not SHORTEST <= count <= LONGEST:
        hint = (
            "say more of what is safe and where the border lies"
            if count < SHORTEST
            else "take out what says the same twice, or make two policies of it"
        )
        message = f"the text has {count:,} tokens, and the guide advises {SHORTEST} to {LONGEST}"
        yield source.finding(source.first_line, Code.LENGTH, message, hint)


def _places(source: PolicySource) -> Iterator[Finding]:
    """Where something waits to be filled in, and what."""
    text = "\n".join(line for _, line in source.text)
    for place in _FILL_IN.finditer(text):
        line, _ = source.text[text.count("\n", 0, place.start())]
        what = textwrap.shorten(place[1], _SHOWN, placeholder="...")
        yield source.finding(line, Code.FILL_IN, f"to be filled in: {what}", "")
