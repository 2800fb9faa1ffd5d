"""The keys of a job file as Markdown tables, from the models that read it.

`python -m moderay.config.reference > docs/job-reference.md` writes the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moderay.config import job
from moderay.config.job import Job

INTRODUCTION = """\
# Job reference

Every key of a job file. How to write one: [job-file.md](job-file.md).

This page is made from the models that read the file, as is `jobs/job.schema.json` for editors:

```bash
python -m moderay.config.reference > docs/job-reference.md
```
"""
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_NAMES = {"boolean": "true or false", "object": "keys and values"}
_FORMATS = {"date": "date", "date-time": "date and time"}
_TABLE = "| key | type | default | meaning |\n|---|---|---|---|"


def job_reference() -> str:
    """The page: one section for the job's own keys, and one for every group of keys in it."""
    schema = Job.model_json_schema()
    titles = dict(_titles(schema, schema["$defs"], ""))
    sections = [_section("The job", Job, schema, titles)]
    for name, title in titles.items():
        model = getattr(job, name)
        sections.append(_section(f"`{title}`", model, schema["$defs"][name], titles))
    return "\n".join([INTRODUCTION, *sections])


def _titles(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    """(name of a model, dotted key at which it stands), in the order of the file."""
    for key, spec in schema["properties"].items():
        for name in _referred(spec):
            title = f"{path}{key}"
            yield name, title
            yield from _titles(definitions[name], definitions, f"{title}.")


def _referred(spec: Any) -> Iterator[str]:
    """Names of the models that a type mentions, each once."""
    references = json.dumps(spec).split('"#/$defs/')[1:]
    yield from dict.fromkeys(text.split('"', 1)[0] for text in references)


def _section(
    title: str, model: type[BaseModel], schema: Mapping[str, Any], titles: Mapping[str, str]
) -> str:
    """One group of keys: its heading, what it is, and its table."""
    lines = [f"## {title}", "", _one_line(schema["description"])]
    if schema["properties"]:
        lines += ["", _TABLE]
    for key, spec in schema["properties"].items():
        field = model.model_fields[key]
        cells = (f"`{key}`", _type(spec, titles), _default(field), _meaning(spec, titles))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _meaning(spec: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """A key's description; a group without one of its own is described where its keys are."""
    if "description" in spec:
        return _one_line(spec["description"])
    return ", ".join(f"see [{titles[name]}]({_anchor(titles[name])})" for name in _referred(spec))


def _one_line(text: str) -> str:
    """A docstring as the text of a page: an asterisk of a glob is no emphasis."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if code else part.replace("*", "\\*") for part, code in zip(parts, cycle((0, 1)))
    )


def _type(spec: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """A JSON Schema type in words, with its bounds. Null is left to the default."""
    if "$ref" in spec:
        title = titles[spec["$ref"].rsplit("/", 1)[1]]
        return f"[keys and values]({_anchor(title)})"
    if "anyOf" in spec:
        choices = [_type(choice, titles) for choice in spec["anyOf"] if choice != {"type": "null"}]
        return " or ".join(dict.fromkeys(choices))
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if spec.get("type") == "array":
        return f"list of {_type(spec['items'], titles)}"
    kind = spec.get("type", "")
    name = _FORMATS.get(spec.get("format", ""), _NAMES.get(kind, kind))
    bounds = [f"{word} {spec[bound]:g}" for bound, word in _BOUNDS.items() if bound in spec]
    return ", ".join([name, *bounds])


def _default(field: FieldInfo) -> str:
    """A default as it would stand in the file; empty where there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, list):
        value = [v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v for v in value]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _anchor(title: str) -> str:
    """The link to a section's heading, as hosts of repositories make it."""
    return "#" + "".join(c for c in title if c.isalnum() or c in "_-")


if __name__ == "__main__":
    sys.stdout.write(job_reference())
