"""Structs in Thrift's compact protocol, read and written again without knowing what they mean.

A field keeps its number, its kind and its place, so that what is read is written back byte for
byte, fields that nobody here knows included.
"""

from __future__ import annotations

from typing import Any, TypeAlias

# Kinds of values, as the protocol numbers them.
TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

# Fields by number: (kind, value). The value of a list is (kind of its elements, elements).
Struct: TypeAlias = dict[int, tuple[int, Any]]

# Structs within structs that are followed; Parquet's have five.
_DEEPEST = 32
# Elements of a list from which on their number does not fit beside their kind.
_LONG = 15


def parse_struct(data: bytes) -> Struct:
    """The struct that these bytes begin with.

    Raises:
        ValueError: They are none that is understood.
        IndexError: They end too early.
    """
    return _Reader(data).struct(0)


def struct_bytes(fields: Struct) -> bytes:
    """A struct as bytes."""
    out = bytearray()
    _write_struct(out, fields)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> Struct:
        if depth > _DEEPEST:
            raise ValueError("structs within structs, without end")
        fields: Struct = {}
        number = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self._zigzag()
            fields[number] = (kind, self._value(kind, depth, in_struct=True))
        return fields

    def _value(self, kind: int, depth: int, in_struct: bool = False) -> Any:
        if kind in (TRUE, FALSE):
            # In a struct the kind is the value; in a list each has a byte.
            return kind == TRUE if in_struct else self._byte() == TRUE
        if kind in (LIST, SET):
            head = self._byte()
            size = head >> 4 if head >> 4 < _LONG else self._varint()
            return head & 15, [self._value(head & 15, depth) for _ in range(size)]
        if kind == STRUCT:
            return self.struct(depth + 1)
        return self._plain(kind)

    def _plain(self, kind: int) -> Any:
        if kind in (I16, I32, I64):
            return self._zigzag()
        if kind == I8:
            return self._byte()
        if kind == DOUBLE:
            return self._take(8)
        if kind == BINARY:
            return self._take(self._varint())
        raise ValueError(f"values of kind {kind}")

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise ValueError("a value that goes beyond the end")
        self._at += size
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def _write_struct(out: bytearray, fields: Struct) -> None:
    before = 0
    for number in sorted(fields):
        kind, value = fields[number]
        if kind in (TRUE, FALSE):
            kind = TRUE if value else FALSE
        if 0 < number - before <= _LONG:
            out.append(number - before << 4 | kind)
        else:
            out.append(kind)
            _write_zigzag(out, number)
        if kind not in (TRUE, FALSE):
            _write_value(out, kind, value)
        before = number
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in (TRUE, FALSE):
        out.append(TRUE if value else FALSE)
    elif kind in (I16, I32, I64):
        _write_zigzag(out, value)
    elif kind == I8:
        out.append(value)
    elif kind == DOUBLE:
        out.extend(value)
    elif kind == BINARY:
        _write_varint(out, len(value))
        out.extend(value)
    elif kind in (LIST, SET):
        inner, elements = value
        if len(elements) < _LONG:
            out.append(len(elements) << 4 | inner)
        else:
            out.append(0xF0 | inner)
            _write_varint(out, len(elements))
        for element in elements:
            _write_value(out, inner, element)
    else:
        _write_struct(out, value)


def _write_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _write_zigzag(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else (-value << 1) - 1)
