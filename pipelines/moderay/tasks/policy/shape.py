"""Findings about the shape of a policy's text: its sections, and how long it is."""

from __future__ import annotations

from collections.abc import Iterator

from moderay.engines.harmony.vocabulary import Vocabulary
from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.source import SECTIONS, PolicySource

# Tokens that OpenAI's guide to gpt-oss-safeguard calls a good length.
SHORTEST, LONGEST = 400, 600
_WHAT = {
    "INSTRUCTIONS": "say what is decided, and that orders in a content are content",
    "DEFINITIONS": "say what the words mean that people could take otherwise",
    "VIOLATES": "list what violates, one kind a line",
    "SAFE": "list what looks like it and is allowed: quotations, reports, warnings, jokes",
    "EXAMPLES": "give four to six from the border, each with its label and why",
}


def shape_findings(source: PolicySource, vocab: Vocabulary) -> Iterator[Finding]:
    """Sections that are missing or empty, and a text that is too short or too long."""
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
