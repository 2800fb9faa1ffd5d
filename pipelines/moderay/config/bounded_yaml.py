"""YAML that cannot take more than moments to read, whoever wrote it.

YAML lets a line stand for a billion: an anchor in an anchor in an anchor. What counts here is what
a text comes to when its aliases are filled in.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import yaml

# Levels of keys and lists; a job has five.
DEEPEST = 50
# Keys, values and characters once aliases are filled in.
LARGEST = 2**21
MOST_NODES = 50_000
# Digits; Python refuses to print a number of 4,301.
LONGEST_NUMBER = 40
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

# By words of PyYAML's messages.
_HINTS = (
    ("'\\t'", "a tab stands there: YAML is indented with spaces"),
    (
        "mapping values are not allowed",
        "a space stands behind a key's colon; a text that holds a colon and a space is in quotes",
    ),
    ("could not find expected ':'", "write key: value, with a space behind the colon"),
    ("expected <block end>", "keys of one group begin in one column"),
    ("unacceptable character", "save the file as UTF-8"),
)

_TEXT = "tag:yaml.org,2002:str"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_SHOWN = 60


class YamlBoundError(yaml.MarkedYAMLError):
    """Sound YAML that is not read here.

    Attributes:
        hint: What to do about it.
    """

    def __init__(self, problem: str, hint: str, mark: Any) -> None:
        """What is wrong at a mark of the text, and the attribute."""
        super().__init__(problem=problem, problem_mark=mark)
        self.hint = hint


def compose(text: str) -> yaml.Node | None:
    """The one document of a text; None where it is empty.

    Raises:
        yaml.YAMLError: It is no YAML, or too much of it.
    """
    loader = _Composer(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def load(text: str) -> Any:
    """The values of a text; None where it is empty.

    Raises:
        yaml.YAMLError: It is no YAML, too much of it, or holds a number or day that is none.
    """
    node = compose(text)
    try:
        return None if node is None else _Constructor().construct_document(node)
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(str(error)) from None


def why_not(error: yaml.YAMLError) -> tuple[str, str]:
    """Why a text was refused, and a hint."""
    if isinstance(error, YamlBoundError):
        return str(error.problem), error.hint
    what = str(getattr(error, "problem", None) or str(error).splitlines()[0])
    return f"no YAML: {what}", next((hint for words, hint in _HINTS if words in what), "")


def shortened(text: str) -> str:
    """A text as messages quote it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class _Composer(yaml.SafeLoader):
    """PyYAML's, which counts as it goes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._size = 0
        # What each anchor comes to, once it is known.
        self._anchored: dict[str, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._check_alias(event)
            return super().compose_node(parent, index)
        self._check_tag(event)
        before = self._nodes, self._size
        self._grow(1, self._length(event), event.start_mark)
        self._depth += 1
        if self._depth > DEEPEST:
            _refuse(f"nested deeper than {DEEPEST} levels", "write it flatter", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._anchored[event.anchor] = self._nodes - before[0], self._size - before[1]
        return node

    def _check_alias(self, event: yaml.AliasEvent) -> None:
        """Count what it stands for. PyYAML refuses an anchor that is nowhere."""
        if event.anchor in self._anchored:
            self._grow(*self._anchored[event.anchor], event.start_mark)
        elif event.anchor in self.anchors:
            message = f"*{event.anchor} stands inside the anchor it names"
            _refuse(message, "write the value out", event.start_mark)

    def _check_tag(self, event: Any) -> None:
        """What a value is follows from how it is written; a tag could ask for any object."""
        tag = event.tag
        if tag not in (None, "!", _TEXT):
            _refuse(f"the tag {shortened(tag)} is not read", "take it out", event.start_mark)

    def _length(self, event: Any) -> int:
        """Characters of a scalar."""
        if not isinstance(event, yaml.ScalarEvent):
            return 0
        if _NO_TEXT.search(event.value):
            message = "a character that no text can hold (NUL, or half of a surrogate pair)"
            _refuse(message, "take it out", event.start_mark)
        return len(event.value)

    def _grow(self, nodes: int, size: int, mark: Any) -> None:
        self._nodes += nodes
        self._size += size
        if self._nodes > MOST_NODES or self._size > LARGEST:
            _refuse(
                f"more than {MOST_NODES:,} keys and values or {LARGEST:,} characters, each alias "
                "counted as what it stands for",
                "write less of it; long lists of literals belong in a file that any_of names",
                mark,
            )


class _Constructor(yaml.constructor.SafeConstructor):
    """PyYAML's, with numbers of a length that can be printed."""

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            _refuse("too long for a number", "put it in quotes", node.start_mark)
        return super().construct_scalar(node)


def _refuse(problem: str, hint: str, mark: Any) -> NoReturn:
    raise YamlBoundError(problem, hint, mark)
