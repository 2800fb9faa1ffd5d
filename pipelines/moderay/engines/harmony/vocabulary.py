"""Texts <-> token ids: harmony's own vocabulary, or the small one of a checkpoint of ours."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from moderay.engines import checkpoint

START = "<|start|>"
END = "<|end|>"
MESSAGE = "<|message|>"
CHANNEL = "<|channel|>"
RETURN = "<|return|>"
CONSTRAIN = "<|constrain|>"
CALL = "<|call|>"
CONTROL_TOKENS = (START, END, MESSAGE, CHANNEL, RETURN, CONSTRAIN, CALL)


class Vocabulary(Protocol):
    """Text <-> token ids."""

    def __hash__(self) -> int:
        """Of the object: a process has one of each."""
        ...

    @property
    def control(self) -> Mapping[str, int]:
        """Spelling -> id of each harmony control token."""
        ...

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token: what bounds the number of tokens of a text from below."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ordinary text only: the spelling of a control token gives ordinary ids."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Never raises: bytes that are no UTF-8 become U+FFFD."""
        ...


class HarmonyVocabulary:
    """The vocabulary of the real models (o200k_harmony, embedded in oss-harmony: no network)."""

    # Bytes of the longest entry of o200k_harmony (a run of blanks).
    longest_token = 128

    def __init__(self) -> None:
        """Loads it, which takes a moment."""
        from openai_harmony import (  # noqa: PLC0415  heavy, and not needed with `tiny`
            HarmonyEncodingName,
            load_harmony_encoding,
        )

        self._encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
        self.control: Mapping[str, int] = {
            token: self._encoding.encode(token, allowed_special="all")[0]
            for token in CONTROL_TOKENS
        }

    def __reduce__(self) -> tuple[object, tuple[()]]:
        """Pickled by name: each process loads its own."""
        return vocabulary, ()

    def encode(self, text: str) -> list[int]:
        """Ordinary text only."""
        return [
            token
            for piece in _pieces(text)
            for token in self._encoding.encode(piece, disallowed_special=())
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Control tokens as they are spelled."""
        text: str = self._encoding.decode(list(ids))
        return text


# The file by which a checkpoint of ours is known.
VOCABULARY = "vocabulary.json"


class CheckpointVocabulary:
    """The small vocabulary that comes with a checkpoint of ours.

    It is `vocabulary.json` (byte-level BPE of the `tokenizers` library, without control tokens) and
    `control_tokens.json` (spelling -> id, above the BPE's ids).
    """

    def __init__(self, source: str) -> None:
        """Reads both; `source`: the checkpoint, as `checkpoint.text` takes it."""
        from tokenizers import Tokenizer  # noqa: PLC0415  heavy, and needed with `tiny` only

        self._source = source
        self._bpe = Tokenizer.from_str(checkpoint.text(source, VOCABULARY) or "")
        control: dict[str, int] = json.loads(checkpoint.text(source, "control_tokens.json") or "{}")
        self.control: Mapping[str, int] = control
        self._spelling = {token_id: spelling for spelling, token_id in control.items()}
        self.longest_token = max(len(token) for token in self._bpe.get_vocab())

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickled by name: each process reads its own."""
        return vocabulary, (self._source,)

    def encode(self, text: str) -> list[int]:
        """Ordinary text only."""
        return [
            token
            for piece in _pieces(text)
            for token in self._bpe.encode(piece, add_special_tokens=False).ids
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Control tokens as they are spelled."""
        if self._spelling.keys().isdisjoint(ids):
            return str(self._bpe.decode(ids, skip_special_tokens=False))
        parts: list[str] = []
        ordinary: list[int] = []
        for token in ids:
            if (spelling := self._spelling.get(token)) is None:
                ordinary.append(token)
                continue
            parts += [self._bpe.decode(ordinary, skip_special_tokens=False), spelling]
            ordinary = []
        return "".join([*parts, self._bpe.decode(ordinary, skip_special_tokens=False)])


# Characters encoded at once. A run without a word boundary costs a tokeniser the square of its
# length (200,000 times one CJK character: 112 s in oss-harmony 0.0.11, and 1,000,000 letters end
# its process with a stack overflow), and any user can type one. Texts of up to this length are
# always encoded whole.
PIECE = 4096


def _pieces(text: str) -> Iterator[str]:
    """A long text, cut where every vocabulary of ours has a token boundary anyway.

    That is before the space between two letters. Only where there is none within `PIECE` characters
    is a run cut hard.
    """
    start = 0
    while len(text) - start > PIECE:
        cut = _boundary(text, start + 1, start + PIECE)
        yield text[start:cut]
        start = cut
    yield text[start:]


def _boundary(text: str, low: int, high: int) -> int:
    cut = text.rfind(" ", low, high)
    while cut > low and not (text[cut - 1].isalpha() and text[cut + 1].isalpha()):
        cut = text.rfind(" ", low, cut)
    return cut if cut > low else high


@functools.cache
def vocabulary(source: str | None = None) -> Vocabulary:
    """The vocabulary of a model.

    A checkpoint's own where it brings one, as `tiny` does, else harmony's.
    """
    if source is not None and checkpoint.text(source, VOCABULARY) is not None:
        return CheckpointVocabulary(source)
    return HarmonyVocabulary()
