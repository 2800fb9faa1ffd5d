"""Which buffers of a record batch are a column's, and how many bytes they are once decompressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pyarrow as pa

from moderay.corpus.formats.base import UnreadableError
from moderay.corpus.formats.ipc_messages import Message


def column_buffers(schema: pa.Schema, message: Message) -> list[range]:
    """Of each column, the numbers of its buffers.

    Raises:
        UnreadableError: There are fewer.
    """
    variadic = iter(message.variadic)
    ends = [0]
    for field in schema:
        ends.append(ends[-1] + sum(_counts(field.type, variadic)))
    if ends[-1] > len(message.buffers):
        raise UnreadableError("a record batch has fewer parts than its columns need")
    return [range(low, high) for low, high in pairwise(ends)]


def _counts(kind: pa.DataType, variadic: Iterator[int]) -> Iterator[int]:
    """How many buffers a type has, and each that is nested in it."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        yield 2
        return
    yield _own(kind, variadic)
    if pa.types.is_map(kind):
        yield from _counts(pa.struct([kind.key_field, kind.item_field]), variadic)
    else:
        for number in range(kind.num_fields):
            yield from _counts(kind.field(number).type, variadic)


def _own(kind: pa.DataType, variadic: Iterator[int]) -> int:
    """Buffers of a type without those nested in it."""
    types = pa.types
    if types.is_null(kind) or types.is_run_end_encoded(kind):
        return 0
    if types.is_union(kind):
        return 1 if kind.mode == "sparse" else 2
    if types.is_struct(kind) or types.is_fixed_size_list(kind):
        return 1
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return 2 + max(0, next(variadic, 0))
    three = (
        types.is_string,
        types.is_binary,
        types.is_large_string,
        types.is_large_binary,
        types.is_list_view,
        types.is_large_list_view,
    )
    return 3 if any(test(kind) for test in three) else 2


def unpacked_bytes(message: Message, numbers: Iterable[int], at: Callable[[int], bytes]) -> int:
    """Bytes of some buffers once they are decompressed, as they say of themselves.

    Arrow takes as much memory before it looks at what is compressed.

    Args:
        message: The batch.
        numbers: Of the buffers.
        at: Gives the eight bytes that begin at a byte of the body.

    Raises:
        UnreadableError: A buffer says nothing.
    """
    total = 0
    for start, size in (message.buffers[number] for number in numbers):
        claimed = size
        if message.codec and size:
            claimed = int.from_bytes(at(start), "little", signed=True)
            # As it is, since it does not become shorter.
            claimed = size - 8 if claimed == -1 else claimed
        if claimed < 0:
            raise UnreadableError("a record batch is damaged")
        total += claimed
    return total
