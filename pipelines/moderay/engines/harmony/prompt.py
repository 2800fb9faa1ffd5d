"""Policy + content -> harmony token ids.

A prompt is built as ids, never as a string that is tokenised again: content is encoded as ordinary
text, so what a user typed can never become a control token. The policy's prefix is rendered once
per policy and effort, which is also what the engine's prefix cache shares. There is no date in it:
a new day must not change the prompt.

The layout is OpenAI's harmony format (github.com/openai/harmony), byte for byte what its own
renderer makes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moderay.config.job import Effort
from moderay.config.policy import Policy
from moderay.engines.harmony.vocabulary import END, MESSAGE, START, Vocabulary

# Part of every judge key: raise it when the text below changes, since verdicts may then change too.
PROMPT_FORMAT = 1


SYSTEM = (
    "You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\n\n"
    "Reasoning: {effort}\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)


@dataclass(frozen=True)
class Prompt:
    """The ids around the content, for one policy.

    Attributes:
        prefix: System and developer message, and the opening of the user's.
        suffix: The end of the user's message, and the opening of the answer.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def render(self, content: Sequence[int]) -> list[int]:
        """The whole prompt; `content`: ids of ordinary text."""
        return [*self.prefix, *content, *self.suffix]


def prompt(policy: Policy, effort: Effort, vocab: Vocabulary) -> Prompt:
    """Render what stands before and after the content."""
    return instructed_prompt(instructions(policy), effort, vocab)


def instructed_prompt(instructed: str, effort: Effort, vocab: Vocabulary) -> Prompt:
    """The same, from a policy as `instructions` gives it and a manifest holds it."""

    def message(role: str, text: str) -> list[int]:
        return [*_opened(role), *vocab.encode(text), vocab.control[END]]

    def _opened(role: str) -> list[int]:
        return [vocab.control[START], *vocab.encode(role), vocab.control[MESSAGE]]

    system = message("system", SYSTEM.format(effort=effort))
    developer = message("developer", f"# Instructions\n\n{instructed}")
    prefix = (*system, *developer, *_opened("user"))
    suffix = (vocab.control[END], vocab.control[START], *vocab.encode("assistant"))
    return Prompt(prefix, suffix)


def instructions(policy: Policy) -> str:
    """The policy's text with the answer format below its title and again before its examples."""
    form = answer_format(policy)
    title, _, body = (
        policy.text.partition("\n") if policy.text.startswith("# ") else ("", "", policy.text)
    )
    head = f"{title}\n\n{form}\n\n" if title else f"{form}\n\n"
    body = body.strip("\n")
    examples = re.search(r"^#+ .*EXAMPLES.*$", body, re.MULTILINE | re.IGNORECASE)
    if examples is None:
        return f"{head}{body}\n\n{form}"
    return f"{head}{body[: examples.start()].rstrip()}\n\n{form}\n\n{body[examples.start() :]}"


def answer_format(policy: Policy) -> str:
    """How the model is told to answer: the label alone, or JSON with the label first."""
    labels = ", ".join(
        f"{name} ({label.title})" if label.title else name for name, label in policy.labels.items()
    )
    if policy.answer == "label":
        return (
            f"## ANSWER FORMAT\nAnswer with exactly one label and nothing else. Labels: {labels}."
        )
    shape = '{"label": "<label>", "rationale": "<one or two sentences>"}'
    return (
        f"## ANSWER FORMAT\nAnswer with this JSON object and nothing else: {shape}. Labels: "
        f"{labels}."
    )
