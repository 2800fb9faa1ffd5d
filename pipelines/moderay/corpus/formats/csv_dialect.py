"""A dialect of CSV: how the fields of a record are told apart, and how one is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Dialect:
    r"""How fields are told apart.

    Attributes:
        delimiter: One character.
        backslash: Whether a quote in a quoted field is `\"`; else it is doubled.
        columns: How many fields a record has; 0 where that is not known yet.
    """

    delimiter: str
    backslash: bool = False
    columns: int = 0

    @cached_property
    def _quoted(self) -> str:
        return r'"(?:[^"\\]++|\\.|"")*+' if self.backslash else r'"(?:[^"]++|"")*+'

    @cached_property
    def _field(self) -> bytes:
        between = re.escape(self.delimiter)
        closed = rf'{self._quoted}"(?=\r?\n|{between})'
        return rf'(?:{closed}|(?!")[^{between}\n]*+)'.encode()

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """A record, its newline included."""
        field, between = self._field, re.escape(self.delimiter).encode()
        return re.compile(field + b"(?:" + between + field + rb")*+\r?\n", re.DOTALL)

    @cached_property
    def _to_the_fault(self) -> re.Pattern[bytes]:
        between = re.escape(self.delimiter).encode()
        return re.compile(b"(?:" + self._field + between + b")*+", re.DOTALL)

    @cached_property
    def _open(self) -> re.Pattern[bytes]:
        return re.compile(self._quoted.encode(), re.DOTALL)

    def is_open(self, data: bytes, start: int) -> bool:
        """Whether what begins here and is no record has a quoted field that goes on to the end."""
        fault = self._to_the_fault.match(data, start)
        field = fault and self._open.match(data, fault.end())
        return bool(field) and field.end() == len(data)  # type: ignore[union-attr]

    def fields(self, record: bytes) -> list[str]:
        """The values of a sound record."""
        return [self._value(field) for field in self._fields(record)]

    def count(self, record: bytes) -> int:
        """How many fields a record has that perhaps has too many."""
        if b'"' not in record:
            return record.count(self.delimiter.encode()) + 1
        return sum(1 for _ in self._fields(record))

    def _fields(self, record: bytes) -> Iterator[bytes]:
        text = record.removesuffix(b"\n").removesuffix(b"\r") + b"\n"
        at = 0
        while at < len(text):
            match = self._one.match(text, at)
            assert match is not None, "a record that is none"
            yield match[0]
            at = match.end() + 1

    @cached_property
    def _one(self) -> re.Pattern[bytes]:
        return re.compile(self._field, re.DOTALL)

    def _value(self, field: bytes) -> str:
        if not field.startswith(b'"'):
            return field.decode()
        inside = field[1:-1]
        if self.backslash:
            return re.sub(rb'\\(["\\])|""', lambda m: m[1] or b'"', inside).decode()
        return inside.replace(b'""', b'"').decode()

    def written(self, value: str) -> str:
        """A value as a quoted field."""
        if self.backslash:
            value = value.replace("\\", "\\\\")
        return '"' + value.replace('"', '\\"' if self.backslash else '""') + '"'
