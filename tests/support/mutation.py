"""Files with random damage: the same ones from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

# Of bytes and of little-endian numbers of 2, 4 and 8 bytes.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
MOST_CHANGES = 6
# Bytes that one change takes out, puts in or moves.
MOST_BYTES = 64

Change = Callable[[bytearray, Random], None]


def mutants(
    data: bytes, seed: int, count: int, tokens: Sequence[bytes] = ()
) -> Iterator[tuple[str, bytes]]:
    """Damaged copies, each with a name from which `mutant` makes it again.

    Args:
        data: A sound file.
        seed: Of all of them.
        count: How many.
        tokens: What is put into some of them, or over what is there.
    """
    for number in range(count):
        name = f"{seed}-{number}"
        yield name, mutant(data, name, tokens)


def mutant(data: bytes, name: str, tokens: Sequence[bytes] = ()) -> bytes:
    """A copy with one to `MOST_CHANGES` changes."""
    random = Random(name)
    changed = bytearray(data)
    changes = [*_CHANGES, *[_with_token(tokens)] * (5 if tokens else 0)]
    for _ in range(random.randint(1, MOST_CHANGES)):
        random.choice(changes)(changed, random)
    return bytes(changed)


def _range(data: bytearray, random: Random) -> slice:
    start = random.randint(0, len(data))
    return slice(start, min(len(data), start + random.randint(1, MOST_BYTES)))


def _flip(data: bytearray, random: Random) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _extreme(data: bytearray, random: Random) -> None:
    size = random.choice((1, 2, 4, 8))
    start = random.randint(0, len(data))
    number = random.choice(EXTREMES)
    data[start : start + size] = random.choice(
        (bytes([number]) * size, number.to_bytes(size, "little"))
    )


def _take_out(data: bytearray, random: Random) -> None:
    del data[_range(data, random)]


def _put_in(data: bytearray, random: Random) -> None:
    start = random.randint(0, len(data))
    data[start:start] = random.randbytes(random.randint(1, MOST_BYTES))


def _double(data: bytearray, random: Random) -> None:
    part = _range(data, random)
    data[part.start : part.start] = data[part]


def _move(data: bytearray, random: Random) -> None:
    part = _range(data, random)
    moved = data[part]
    del data[part]
    start = random.randint(0, len(data))
    data[start:start] = moved


def _cut_short(data: bytearray, random: Random) -> None:
    if random.random() < 0.2:
        del data[random.randint(0, len(data)) :]


def _with_token(tokens: Sequence[bytes]) -> Change:
    def change(data: bytearray, random: Random) -> None:
        token = random.choice(tokens)
        start = random.randint(0, len(data))
        data[start : start + random.choice((0, len(token)))] = token

    return change


_CHANGES: tuple[Change, ...] = (_flip, _extreme, _take_out, _put_in, _double, _move, _cut_short)
