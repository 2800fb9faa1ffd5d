"""The `screen` judge: a linear classifier over hashed byte n-grams.

It settles only "does not violate", below its cut-off.

A text is lower-cased and put between spaces; every n-gram of its UTF-8 bytes, of each size, adds
its bucket's weight, and the sum is divided by the square root of the number of n-grams. Weights are
whole numbers, so sums are exact: a score depends neither on the rows beside it nor on where a long
text is cut. Scoring takes numpy alone, no loop over rows, and some MiB beside the texts. A screen
is two files, `card.json` and `weights.npy`, made by `moderay.tasks.calibrate.calibrate`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.errors import Problem, Problems
from moderay.core.hashing import digest
from moderay.core.records import RecordRefusedError
from moderay.core.verdicts import VERDICT, Origin, Status
from moderay.judges.cards import CARD, FEATURES, Card, Features

WEIGHTS = "weights.npy"

_FOLDER = "a screen is a folder with card.json and weights.npy"
_AGAIN = "train the screen again: moderay calibrate"

# Bytes scored at once: what a block needs then stays in a core's cache.
BLOCK = 64 * 1024
# Odd 32-bit constants with well-mixed bits: the polynomial's base, and the multiplier that spreads
# it over the top bits.
BASE = np.uint32(0x9E3779B1)
SPREAD = np.uint32(0x85EBCA6B)


@dataclass(frozen=True)
class Linear:
    """A trained classifier.

    Attributes:
        weights: int16, (buckets,).
        scale: What a sum of weights is multiplied by to be log-odds.
        intercept: Log-odds that are added.
    """

    weights: np.ndarray
    scale: float
    intercept: float

    def scores(self, texts: pa.Array) -> np.ndarray:
        """How likely each text violates.

        Args:
            texts: string or large_string, each of any length.

        Returns:
            Log-odds, float32 (texts,); NaN, which is below no cut-off, where a text is null or
            empty.
        """
        out = np.empty(len(texts), np.float32)
        for start, stop in blocks(texts, BLOCK):
            data, starts, ends = padded(texts.slice(start, stop - start))
            sums = self._sums(data, starts, ends) * self.scale
            out[start:stop] = sums / np.sqrt(ngrams(starts, ends)) + self.intercept
        out[no_text(texts)] = np.nan
        return out

    def _sums(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The sum of the weights of each row's n-grams, int64 (rows,).

        In pieces, for one long row can be most of the data.

        Args:
            data: uint8, the rows' bytes end to end (`padded`).
            starts: Of each row, the byte at which its first n-gram begins.
            ends: The byte before which its last one begins.
        """
        sums = np.zeros(len(starts), np.int64)
        for at in range(0, len(data) - FEATURES.largest + 1, BLOCK):
            piece = data[at : at + BLOCK + FEATURES.largest - 1]
            count = len(piece) - FEATURES.largest + 1
            total = np.zeros(count, np.int32)
            for bucket in buckets(piece):
                total += self.weights[bucket]
            running = np.zeros(count + 1, np.int64)
            np.cumsum(total, out=running[1:])
            sums += running[np.clip(ends - at, 0, count)] - running[np.clip(starts - at, 0, count)]
        return sums


@dataclass(frozen=True, eq=False)
class Screen:
    """A policy's screen; picklable.

    Attributes:
        card: What was trained on what, and its promise.
        weights: int16, (buckets,).
    """

    card: Card
    weights: np.ndarray

    @property
    def name(self) -> str:
        """What `decided_by` calls it."""
        return "screen"

    @property
    def policy(self) -> str:
        """The id of its policy."""
        return self.card.teacher.policy

    @cached_property
    def key(self) -> str:
        """Its judge key: the hash of its files, for the card has the digest of the weights."""
        return digest(self.card.model_dump(mode="json"))

    def identity(self) -> dict[str, object]:
        """What its card says, the curve apart."""
        return self.card.model_dump(mode="json", exclude={"curve"})

    def scores(self, texts: pa.Array) -> np.ndarray:
        """As `Linear.scores`."""
        return Linear(self.weights, self.card.scale, self.card.intercept).scores(texts)

    def under(self, cut_off: float) -> Screen:
        """The same screen with another cut-off; its key is another one."""
        return replace(self, card=self.card.model_copy(update={"cut_off": cut_off}))

    def promised_scores(self, texts: pa.Array) -> np.ndarray:
        """As `scores`, and NaN where a text is longer than all the card speaks of.

        The promise says nothing of it, and a little of anything is lost in it.
        """
        longer = pc.fill_null(pc.greater(pc.binary_length(texts), self.card.longest), True)
        is_longer = np.asarray(longer.to_numpy(zero_copy_only=False))
        return np.asarray(np.where(is_longer, np.float32(np.nan), self.scores(texts)))

    def settle(self, texts: pa.Array, table: pa.Table) -> pa.StructArray:
        """The verdicts on texts that score below the cut-off.

        Args:
            texts: string or large_string, the contents as the model reads them.
            table: Not used: every judge that settles columns has this signature.

        Returns:
            Structs of `verdicts.VERDICT`, null where the text is passed on.
        """
        passed_on = ~(self.promised_scores(texts) < np.float32(self.card.cut_off))
        verdict = {"status": Status.OK.value, "decided_by": "screen", "origin": Origin.JUDGED.value}
        columns = [
            pa.repeat(pa.scalar(verdict.get(field.name), field.type), len(texts))
            for field in VERDICT
        ]
        return pa.StructArray.from_arrays(columns, fields=list(VERDICT), mask=pa.array(passed_on))


def blocks(texts: pa.Array, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose texts have about `size` bytes together.

    A longer row has a range of its own.
    """
    ends = np.cumsum(
        pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False), dtype=np.int64
    )
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + size, side="right")))
        yield start, stop
        start = stop


def folded(texts: pa.Array) -> pa.Array:
    """What of the texts a screen can tell apart: large_string, lower-cased, without nulls."""
    return pc.utf8_lower(pc.fill_null(texts.cast(pa.large_string()), ""))


def no_text(texts: pa.Array) -> np.ndarray:
    """Bool: null or empty."""
    return np.asarray(
        pc.fill_null(pc.equal(pc.binary_length(texts), 0), True).to_numpy(zero_copy_only=False)
    )


def padded(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The folded texts' bytes end to end, and where each row's n-grams begin in them.

    Spaces before and after: words at either end look as they do inside, and no n-gram reaches the
    next row.

    Returns:
        The bytes, uint8; of each row, the byte at which its first n-gram begins, int64; and the
        byte before which its last one begins, int64.
    """
    before = pa.scalar(" ", pa.large_string())
    behind = pa.scalar(" " * (FEATURES.largest - 1), pa.large_string())
    between = pa.scalar("", pa.large_string())
    joined = pc.binary_join_element_wise(before, folded(texts), behind, between)
    offsets = np.frombuffer(joined.buffers()[1], np.int64, len(joined) + 1, 8 * joined.offset)
    data = np.frombuffer(joined.buffers()[2], np.uint8, offsets[-1] - offsets[0], offsets[0])
    ends = offsets - offsets[0]
    return data, ends[:-1], ends[1:] - (FEATURES.largest - 1)


def ngrams(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How many n-grams each row has, of all sizes together."""
    return np.asarray((ends - starts) * (FEATURES.largest - FEATURES.smallest + 1))


def buckets(data: np.ndarray) -> Iterator[np.ndarray]:
    """For each size, the buckets of the n-grams that begin at each byte, uint32.

    At the last `largest - 1` bytes none begins.
    """
    count = len(data) - FEATURES.largest + 1
    rolled = np.zeros(count, np.uint32)
    for size in range(1, FEATURES.largest + 1):
        rolled *= BASE
        rolled += data[size - 1 : size - 1 + count]
        if size >= FEATURES.smallest:
            spread = rolled ^ (rolled >> np.uint32(15))
            spread *= SPREAD
            spread >>= np.uint32(32 - FEATURES.bits)
            yield spread


def weights_digest(weights: np.ndarray) -> str:
    """What the card calls the weights by."""
    data = np.ascontiguousarray(weights, "<i2").tobytes()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def save_screen(screen: Screen, folder: str | Path) -> None:
    """Write `card.json` and `weights.npy`.

    A reader meets the old or the new of each, and a mixed pair is refused.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        np.save(Path(name) / WEIGHTS, screen.weights.astype("<i2"), allow_pickle=False)
        (Path(name) / CARD).write_bytes(screen.card.to_json())
        for file in (WEIGHTS, CARD):
            os.replace(Path(name) / file, folder / file)


def load_screen(folder: str | Path) -> Screen:
    """Read what `save_screen` wrote.

    Raises:
        Problems: All that is wrong with either file.
    """
    folder = Path(folder)
    card, problems = _card(folder / CARD)
    weights, more = _weights(folder / WEIGHTS, card)
    if card is None or weights is None or problems or more:
        raise Problems([*problems, *more])
    return Screen(card, weights)


def _card(file: Path) -> tuple[Card | None, list[Problem]]:
    """The card, where it can be read at all, and what is wrong with it."""
    try:
        card = Card.from_json(file.read_bytes(), str(file))
    except OSError as error:
        return None, [Problem(str(file), None, f"cannot be read: {error.strerror}", _FOLDER)]
    except RecordRefusedError as error:
        return None, [
            Problem(str(file), None, f"no screen's card: it {error.reason}", error.remedy)
        ]
    if card.features == FEATURES:
        return card, []
    message = (
        f"made by moderay {card.moderay} with features that are not today's: "
        f"{_words(card.features)}, here {_words(FEATURES)}"
    )
    return card, [Problem(str(file), None, message, _AGAIN)]


def _words(features: Features) -> str:
    return " ".join(f"{name}={value}" for name, value in features)


def _weights(file: Path, card: Card | None) -> tuple[np.ndarray | None, list[Problem]]:
    """The weights, where they are those of the card, and what is wrong with them."""
    try:
        # Mapped: a header may claim an array that no memory holds.
        weights = np.load(file, allow_pickle=False, mmap_mode="r")
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        return None, [Problem(str(file), None, message, _FOLDER)]
    except (ValueError, EOFError) as error:
        return None, [Problem(str(file), None, f"no array of numpy's: {error}", _AGAIN)]
    features = FEATURES if card is None else card.features
    shape = (2**features.bits,)
    if weights.dtype != np.int16 or weights.shape != shape:
        message = f"holds {weights.dtype} {weights.shape}, not int16 {shape}"
        return None, [Problem(str(file), None, message, _AGAIN)]
    if card is not None and weights_digest(weights) != card.weights:
        message = f"not the weights that {CARD} was written for"
        return None, [Problem(str(file), None, message, _AGAIN)]
    return np.array(weights), []
