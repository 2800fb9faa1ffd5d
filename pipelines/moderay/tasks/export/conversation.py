"""A case as the conversation that a model is trained on: token ids, text and messages.

The prompt is the one that the model is asked with, token for token. What follows is what it should
have answered. Only that is learned, and of it only what somebody said:

- Where people confirmed the model's verdict, its reasoning and its answer are learned.
- Where they corrected it, or its reasoning is not stored, there is none to learn. The final channel
  follows at once; its header is not learned, or the model would learn not to reason.
- Where nobody gave a rationale either, the answer ends behind its label, in the open rationale:
  the model's own way of giving reasons stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moderay.config.job import Effort
from moderay.engines.harmony.answer import RATIONALE_CLOSED, RATIONALE_OPENED
from moderay.engines.harmony.prompt import instructed_prompt
from moderay.engines.harmony.vocabulary import CHANNEL, END, MESSAGE, RETURN, START, Vocabulary
from moderay.tasks.export.cases import Case
from moderay.tasks.export.policies import TaughtPolicy

# What some vocabulary of the model's takes for a control token, where it is in a text.
_CONTROL = re.compile(r"<\|[a-z0-9_]+\|>")


@dataclass(frozen=True)
class Conversation:
    """One example to train on.

    Attributes:
        prompt_ids: What the model is given, as `moderay render --ids` prints it.
        completion_ids: What it should answer.
        learned: Parallel to these: whether a token is learned.
        text: Both, decoded; control tokens as they are spelled.
        text_is_exact: Whether encoding `text` gives the same ids: nothing in the content is spelled
            like a control token.
        messages: The same as roles and texts.
        whole: Whether the answer is there to its end.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    learned: list[bool]
    text: str
    text_is_exact: bool
    messages: list[dict[str, Any]]
    whole: bool


class Conversations:
    """Writes conversations of one policy."""

    def __init__(self, policy: TaughtPolicy, effort: Effort, vocab: Vocabulary) -> None:
        """As a model is asked with this effort, in its vocabulary."""
        self._policy = policy
        self._vocab = vocab
        self._prompt = instructed_prompt(policy.instructions, effort, vocab)

    def of(self, case: Case) -> Conversation | None:
        """The conversation on a case; None where its content is judged in several windows."""
        content = self._vocab.encode(case.text)
        if self._policy.window is not None and len(content) > self._policy.window:
            return None
        answer, whole = self._answer(case)
        prompt = self._prompt.render(content)
        completion, learned = self._completion(answer, whole, case.reasoning)
        free = (case.text, answer, case.reasoning or "")
        return Conversation(
            prompt,
            completion,
            learned,
            self._vocab.decode([*prompt, *completion]),
            not any(_CONTROL.search(text) for text in free),
            self._messages(case, answer),
            whole,
        )

    def _answer(self, case: Case) -> tuple[str, bool]:
        """The text of the final channel, and whether it ends there."""
        if self._policy.answer == "label":
            return case.label, True
        if not case.rationale:
            return f"{RATIONALE_OPENED}{case.label}{RATIONALE_CLOSED}", False
        answer = {"label": case.label, "rationale": case.rationale}
        return json.dumps(answer, ensure_ascii=False), True

    def _completion(
        self, answer: str, whole: bool, reasoning: str | None
    ) -> tuple[list[int], list[bool]]:
        """Token ids behind the prompt, and which of them are learned."""
        control, encode = self._vocab.control, self._vocab.encode
        ends = [control[RETURN]] if whole else []
        said = [*encode(answer), *ends]
        header = self._header("final")
        if reasoning is None:
            return [*header, *said], [*[False] * len(header), *[True] * len(said)]
        thought = [*self._header("analysis"), *encode(reasoning), control[END]]
        again = [control[START], *encode("assistant")]
        completion = [*thought, *again, *header, *said]
        return completion, [True] * len(completion)

    def _header(self, channel: str) -> list[int]:
        control = self._vocab.control
        return [control[CHANNEL], *self._vocab.encode(channel), control[MESSAGE]]

    def _messages(self, case: Case, answer: str) -> list[dict[str, Any]]:
        """As chat templates of gpt-oss take them, which write the system message themselves."""
        said: Sequence[tuple[str, str, str | None]] = (
            ("developer", self._policy.instructions, None),
            ("user", case.text, None),
            ("assistant", answer, case.reasoning),
        )
        return [
            {"role": role, "content": content, "thinking": thinking}
            for role, content, thinking in said
        ]
