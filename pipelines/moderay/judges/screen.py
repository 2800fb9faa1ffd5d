"""The `screen` judge: a linear classifier over hashed byte n-grams. It settles only "does not
violate", below its cut-off.

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.errors import Problem, Problems
from moderay.core.hashing import digest
from moderay.core.records import RecordRefusedError
from moderay.core.verdicts import VERDICT, Origin, Status
from moderay.judges.cards import CARD, FEATURES, Card

WEIGHTS = "weights.npy"

# Bytes scored at once: what a block needs then stays in a core's cache.
BLOCK = 64 * 1024
# Odd 32-bit constants with well-mixed bits: the polynomial's base, and the multiplier that spreads
# it over the top bits.
BASE = np.uint32(0x9E3779B1)
SPREAD = np.uint32(0x85EBCA6B)


@dataclass(frozen=True)
class Linear:
    """A trained classifier: `weights`, int16, one per bucket, and what turns their sums into
    log-odds.
    """

    weights: np.ndarray
    scale: float
    intercept: float

    def scores(self, texts: pa.Array) -> np.ndarray:
        """Log-odds of a violation, float32; NaN, which is below no cut-off, where a text is null or
        empty.

        texts: string or large_string, of any length.
        """
        out = np.empty(len(texts), np.float32)
        for start, stop in blocks(texts, BLOCK):
            data, starts, ends = padded(texts.slice(start, stop - start))
            sums = self._sums(data, starts, ends) * self.scale
            out[start:stop] = sums / np.sqrt(ngrams(starts, ends)) + self.intercept
        out[no_text(texts)] = np.nan
        return out

    def _sums(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Per row, the sum of the weights of its n-grams, int64; in pieces, for one long row can be
        most of the data.
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
    """A policy's screen; picklable. `weights`: int16, one per bucket."""

    card: Card
    weights: np.ndarray

    @property
    def name(self) -> str:
        return "screen"

    @property
    def policy(self) -> str:
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

    def settle(self, texts: pa.Array, table: pa.Table) -> pa.StructArray:
        """Structs of `verdicts.VERDICT` where a text scores below the cut-off, null where it is
        passed on. So is one that is longer than all the card speaks of: the promise says nothing of
        it, and a little of anything is lost in it.

        `table` is not used: every judge that settles columns has this signature.
        """
        longer = np.asarray(
            pc.fill_null(pc.greater(pc.binary_length(texts), self.card.longest), True).to_numpy(
                zero_copy_only=False
            )
        )
        passed_on = longer | ~(self.scores(texts) < np.float32(self.card.cut_off))
        given = {"status": Status.OK.value, "decided_by": "screen", "origin": Origin.JUDGED.value}
        columns = [
            pa.repeat(pa.scalar(given.get(field.name), field.type), len(texts)) for field in VERDICT
        ]
        return pa.StructArray.from_arrays(columns, fields=list(VERDICT), mask=pa.array(passed_on))


def blocks(texts: pa.Array, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose texts have about `size` bytes together; a longer row has a range of its
    own.
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
    """The folded texts' bytes end to end, uint8, and the range of bytes at which each row's n-grams
    begin.

    Spaces before and after: words at either end look as they do inside, and no n-gram reaches the
    next row.
    """
    space = [pa.scalar(" " * count, pa.large_string()) for count in (1, FEATURES.largest - 1, 0)]
    joined = pc.binary_join_element_wise(space[0], folded(texts), space[1], space[2])
    offsets = np.frombuffer(joined.buffers()[1], np.int64, len(joined) + 1, 8 * joined.offset)
    data = np.frombuffer(joined.buffers()[2], np.uint8, offsets[-1] - offsets[0], offsets[0])
    ends = offsets - offsets[0]
    return data, ends[:-1], ends[1:] - (FEATURES.largest - 1)


def ngrams(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How many n-grams each row has, of all sizes together."""
    return np.asarray((ends - starts) * (FEATURES.largest - FEATURES.smallest + 1))


def buckets(data: np.ndarray) -> Iterator[np.ndarray]:
    """For each size, the bucket (uint32) of the n-gram that begins at each byte; at the last
    `largest - 1` none begins.
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
    return hashlib.blake2b(
        np.ascontiguousarray(weights, "<i2").tobytes(), digest_size=16
    ).hexdigest()


def save_screen(screen: Screen, folder: str | Path) -> None:
    """Write `card.json` and `weights.npy`; a reader meets the old or the new of each, and a mixed
    pair is refused.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        np.save(Path(name) / WEIGHTS, screen.weights.astype("<i2"), allow_pickle=False)
        (Path(name) / CARD).write_bytes(screen.card.to_json())
        for file in (WEIGHTS, CARD):
            os.replace(Path(name) / file, folder / file)


def load_screen(folder: str | Path) -> Screen:
    """Read what `save_screen` wrote. Raises `Problems` with everything wrong."""
    folder = Path(folder)
    card, problems = _card(folder / CARD)
    weights, more = _weights(folder / WEIGHTS, card)
    if card is None or weights is None or problems or more:
        raise Problems([*problems, *more])
    return Screen(card, weights)


AGAIN = Card.remedy


def _card(file: Path) -> tuple[Card | None, list[Problem]]:
    try:
        card = Card.from_json(file.read_bytes(), str(file))
    except OSError as error:
        return None, [
            Problem(
                str(file),
                None,
                f"cannot be read: {error.strerror}",
                "a screen is a folder with card.json and weights.npy",
            )
        ]
    except RecordRefusedError as error:
        return None, [
            Problem(str(file), None, f"no screen's card: it {error.reason}", error.remedy)
        ]
    if card.features != FEATURES:
        made, here = (
            " ".join(f"{name}={value}" for name, value in features)
            for features in (card.features, FEATURES)
        )
        return card, [
            Problem(
                str(file),
                None,
                (
                    f"made by moderay {card.moderay} with features that are not today's: {made}, "
                    f"here {here}"
                ),
                AGAIN,
            )
        ]
    return card, []


def _weights(file: Path, card: Card | None) -> tuple[np.ndarray | None, list[Problem]]:
    try:
        weights = np.load(file, allow_pickle=False)
    except OSError as error:
        return None, [
            Problem(
                str(file),
                None,
                f"cannot be read: {error.strerror or error}",
                "a screen is a folder with card.json and weights.npy",
            )
        ]
    except (ValueError, EOFError) as error:
        return None, [Problem(str(file), None, f"no array of numpy's: {error}", AGAIN)]
    features = FEATURES if card is None else card.features
    if weights.dtype != np.int16 or weights.shape != (2**features.bits,):
        return None, [
            Problem(
                str(file),
                None,
                f"holds {weights.dtype} {weights.shape}, not int16 ({2**features.bits},)",
                AGAIN,
            )
        ]
    if card is not None and weights_digest(weights) != card.weights:
        return None, [
            Problem(str(file), None, f"not the weights that {CARD} was written for", AGAIN)
        ]
    return weights, []
