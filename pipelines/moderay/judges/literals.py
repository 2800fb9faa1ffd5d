"""Which texts hold one of many literals, in a time that hardly depends on how many there are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from ahocorasick_rs import AhoCorasick

from moderay.core.hashing import digest

# Characters searched in one call: it returns every match, and a text of 100 MB can hold as many.
PIECE = 2**16
# Characters of words, as in the `\w` of Unicode's regular expressions; the two at the end join
# parts of one word.
_WORD_CATEGORIES = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "Pc"})
_JOINERS = "\u200c\u200d"


def lowered(text: str) -> str:
    """Unicode lower case, by which case does not matter.

    Greek has two small sigmas, chosen by what follows; here one, so that a part of a text is
    lowered as it is within the whole.
    """
    return text.lower().replace("ς", "σ")


@dataclass(frozen=True)
class Literals:
    """Texts to look for; picklable.

    Attributes:
        key: Hash of the texts; two with the same key and `words` are equal.
        words: Only as whole words, with no letter, digit, mark or underscore next to them.
        texts: In lower case, each once, sorted.
    """

    key: str
    words: bool
    texts: tuple[str, ...] = field(repr=False, compare=False)

    @classmethod
    def of(cls, texts: Iterable[str], words: bool = False) -> Literals:
        """Literals as people write them.

        Raises:
            ValueError: One is empty, which every text holds; or there is none at all.
        """
        once = tuple(sorted({lowered(text) for text in texts}))
        if not once or not once[0]:
            raise ValueError("literals must be texts of at least one character")
        return cls(digest(once), words, once)

    def occur_in(self, texts: Sequence[str]) -> np.ndarray:
        """Bool: whether each of some texts, as `lowered` gives them, holds one of the literals."""
        search = _search(self)
        return np.fromiter(
            map(search.whole_words if self.words else search.anywhere, texts), bool, len(texts)
        )


@dataclass(frozen=True)
class _Search:
    """A search for all the literals at once.

    Attributes:
        automaton: Over all of them.
        overlap: Characters that pieces share, so that no match is cut in two.
    """

    automaton: AhoCorasick
    overlap: int

    def anywhere(self, text: str) -> bool:
        """Whether a literal is in the text."""
        find = self.automaton.find_matches_as_indexes
        size = PIECE + self.overlap
        return any(find(text[at : at + size]) for at in range(0, len(text), PIECE))

    def whole_words(self, text: str) -> bool:
        """Whether a literal is a word of the text.

        A match that is no word may lie over one that is: hence all of them, overlapping.
        """
        find = self.automaton.find_matches_as_indexes
        size = PIECE + self.overlap
        return any(
            _is_word(text, at + start, at + end)
            for at in range(0, len(text), PIECE)
            for _, start, end in find(text[at : at + size], overlapping=True)
        )


@cache
def _search(literals: Literals) -> _Search:
    """Made once in each process, not once for each unpickled rule.

    100,000 literals take most of a second.
    """
    longest = max(map(len, literals.texts))
    return _Search(AhoCorasick(literals.texts, store_patterns=False), longest - 1)


def _is_word(text: str, start: int, end: int) -> bool:
    return not (start and _in_word(text[start - 1])) and not (
        end < len(text) and _in_word(text[end])
    )


def _in_word(char: str) -> bool:
    return unicodedata.category(char) in _WORD_CATEGORIES or char in _JOINERS
