"""The `glance` judge: the safeguard without its reasoning.

The prompt ends in an open final channel, and P is read from the label's token: one prefill, of
which the policy's part is in the prefix cache, shared with `reason`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moderay.config.policy import Policy
from moderay.core.errors import Problem, Problems
from moderay.core.hashing import digest
from moderay.core.records import RecordRefusedError
from moderay.core.verdicts import Origin, Status, Verdict
from moderay.engines.base import Counted
from moderay.engines.harmony.answer import read_label
from moderay.engines.harmony.scores import label_scores
from moderay.engines.host import EngineHost
from moderay.judges.cards import CARD, BandCard
from moderay.judges.safeguard import DETAIL, Safeguard


def load_band(folder: str | Path) -> BandCard:
    """Read what `save_band` wrote.

    Raises:
        Problems: The folder has no such card.
    """
    file = Path(folder) / CARD
    try:
        return BandCard.from_json(file.read_bytes(), str(file))
    except OSError:
        hint = "a folder made by moderay calibrate --judge glance"
        raise Problems([Problem(str(file), None, "no such card", hint)]) from None
    except RecordRefusedError as error:
        message = f"no card of a glance: it {error.reason}"
        raise Problems([Problem(str(file), None, message, error.remedy)]) from None


def save_band(card: BandCard, folder: str | Path) -> None:
    """Write the card of a calibrated band."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / CARD).write_bytes(card.to_json())


@dataclass(frozen=True)
class Band:
    """Which P(violates) glance is sure of; without either edge it is the last judge, sure of all.

    Attributes:
        below: It is sure of what lies below this.
        above: And of what lies above this.
    """

    below: float | None = None
    above: float | None = None

    def settles(self, probability: Any) -> Any:
        """Whether it is sure of a number, or of each of an array; of NaN it never is."""
        if self.below is None and self.above is None:
            return probability >= 0
        return (probability < (0 if self.below is None else self.below)) | (
            probability > (1 if self.above is None else self.above)
        )


@dataclass(frozen=True)
class Glance:
    """One policy's glance judge; picklable.

    Attributes:
        safeguard: The model that is asked.
        band: What it is sure of. Not in its key: P does not depend on it.
        card: Of the calibration that gave the band, where one did.
        name: What `decided_by` calls it.
    """

    safeguard: Safeguard
    band: Band
    card: BandCard | None = None
    name = "glance"

    @property
    def policy(self) -> Policy:
        """What is asked about."""
        return self.safeguard.policy

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return self.safeguard.max_model_len

    def identity(self) -> dict[str, object]:
        """Everything that can change this judge's verdict."""
        return {"judge": self.name, **self.safeguard.identity()}

    @cached_property
    def key(self) -> str:
        """Its judge key."""
        return digest(self.identity())

    def settles(self, verdict: Verdict) -> bool:
        """Whether this verdict of its own stands: its P lies where the band is sure."""
        return verdict.scores is not None and bool(
            self.band.settles(self.safeguard.probability(verdict.scores))
        )

    def repeated(self, repeat: int) -> Glance:
        """Itself: nothing of it is drawn."""
        return self

    async def judge(self, host: EngineHost, ids: Sequence[int], row: str) -> Verdict:
        """The verdict on a content.

        Args:
            host: Of the engine.
            ids: The content's token ids.
            row: The content's hash.
        """
        safeguard = self.safeguard
        if safeguard.in_words:
            return await safeguard.over_windows(
                host,
                row,
                safeguard.texts(ids),
                lambda engine, text, _: self._ask_in_words(engine, text),
            )
        return await safeguard.over_windows(
            host, row, safeguard.prompts(ids), lambda engine, prompt, _: self._ask(engine, prompt)
        )

    async def _ask(self, engine: Counted, prompt: list[int]) -> Verdict:
        scores = await self.safeguard.scores(engine, [*prompt, *self.safeguard.final_header])
        if scores is None:
            return Verdict(Status.UNPARSED, detail="no probability for any label")
        answer = self.policy.label_names[scores.index(max(scores))]
        return Verdict(
            Status.OK,
            scores=scores,
            answer=answer,
            decided_by=self.name,
            origin=Origin.JUDGED,
            forced=False,
            prompt_tokens=len(prompt),
            output_tokens=1,
        )

    async def _ask_in_words(self, endpoint: Counted, text: str) -> Verdict:
        question = self.safeguard.question(text, temperature=0.0)
        reply = await endpoint.respond(self.safeguard.forced(question))
        label = None if reply.answer is None else read_label(reply.answer, self.policy)
        if label is None:
            return Verdict(Status.UNPARSED, detail=(reply.answer or reply.reasoning)[:DETAIL])
        return Verdict(
            Status.OK,
            scores=label_scores(reply.tokens, label, self.policy),
            answer=label,
            decided_by=self.name,
            origin=Origin.JUDGED,
            forced=False,
            prompt_tokens=reply.prompt_tokens,
            output_tokens=reply.output_tokens,
        )
