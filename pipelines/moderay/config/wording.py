"""What pydantic finds wrong with a value, in the words of the people who wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = "should be text"
_WHOLE = "should be a whole number"
_NUMBER = "should be a number"
_TRUTH = "should be true or false"
_DATE = "should be a date, such as 2026-11-20"
_TIME = "should be a date and time, such as 2026-11-20T08:00"
_LIST = "should be a list"
_KEYS = "should be keys and values"
# By pydantic's name of the error; what stands in braces is in its context.
_WORDS = {
    "bool_parsing": _TRUTH,
    "bool_type": _TRUTH,
    "date_from_datetime_inexact": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_parsing": _DATE,
    "date_type": _DATE,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "datetime_parsing": _TIME,
    "datetime_type": _TIME,
    "dict_type": _KEYS,
    "finite_number": "should be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "should be above {gt:g}",
    "greater_than_equal": "should be at least {ge:g}",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "should be a smaller number",
    "int_type": _WHOLE,
    "less_than": "should be below {lt:g}",
    "less_than_equal": "should be at most {le:g}",
    "list_type": _LIST,
    "literal_error": "should be {expected}",
    "mapping_type": _KEYS,
    "model_attributes_type": _KEYS,
    "model_type": _KEYS,
    "string_pattern_mismatch": ("should be small letters, digits and '_', with a letter first"),
    "string_sub_type": _TEXT,
    "string_too_short": "should not be empty",
    "string_type": _TEXT,
    "string_unicode": "should be text without half characters",
    "timezone_aware": _TIME,
    "timezone_naive": _TIME,
    "too_short": "should name at least {min_length}",
}


def in_words(item: Mapping[str, Any]) -> str:
    """What is wrong with a value: one of pydantic's `errors()`."""
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return str(context["error"])
    return _WORDS[item["type"]].format(**context)


def value_hint(item: Mapping[str, Any]) -> str:
    """What to write instead, where the value shows what was meant; else empty."""
    kind, value = item["type"], item["input"]
    wants_text = kind in ("string_type", "literal_error")
    if wants_text and isinstance(value, bool):
        return "YAML reads yes, no, on and off as true and false: put the word in quotes"
    if wants_text and isinstance(value, int | float):
        return f'put it in quotes: "{value}"'
    if kind == "list_type" and isinstance(value, str):
        return f"write [{value}]"
    return ""


def written(value: object) -> str:
    """A value as people write it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)
