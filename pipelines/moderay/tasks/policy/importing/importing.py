"""`moderay policy import`: a policy as it was published -> policy.md and golden.jsonl."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from moderay.config.policy import (
    LONGEST_GOLDEN,
    GoldenCase,
    Label,
    load_golden,
    parse_policy,
)
from moderay.config.text_file import read_text
from moderay.core.errors import Problem, Problems
from moderay.tasks.init.files import create, filled
from moderay.tasks.init.policy import check_id
from moderay.tasks.policy.importing.documents import found_data, found_lines, found_markdown
from moderay.tasks.policy.importing.found import Found, FoundCase, PolicyText, not_placed
from moderay.tasks.policy.importing.labels import front_labels, policy_labels
from moderay.tasks.policy.importing.sheet import found_sheet

# By the ending of a file's name, what it is read as.
KINDS = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".csv": "sheet",
    ".tsv": "sheet",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
}
_ENDINGS = ", ".join(KINDS)
_LONGEST_TITLE = 80


@dataclass(frozen=True)
class Imported:
    """A policy that was made.

    Attributes:
        files: What was written.
        cases: How many golden cases it has.
        labels: How many of them have each label.
        safe: Labels that were taken not to violate.
        violating: Labels that were taken to violate.
        notes: What has no place in it, with its line.
    """

    files: tuple[Path, ...]
    cases: int
    labels: Mapping[str, int]
    safe: tuple[str, ...]
    violating: tuple[str, ...]
    notes: tuple[Problem, ...]


def import_policy(sources: Sequence[Path], policy_id: str, folder: Path) -> Imported:
    """Make a policy of files that others published.

    Args:
        sources: The files, or folders of them.
        policy_id: The new policy's id.
        folder: Where its own folder, which bears its id, is made.

    Raises:
        UserError: It is no id of a policy.
        Problems: A file cannot be read, the files hold no policy or several, or one of the new
            files is there already; nothing is written then.
    """
    check_id(policy_id)
    found = _found(sources)
    chosen, unused = _policy_text(found)
    file, text, front = (chosen.file, chosen.text, chosen.front) if chosen else ("", "", {})
    labels, wrong = front_labels(front, file)
    where = found.cases[0].file if found.cases else str(sources[0])
    labels = labels or policy_labels(found.cases, text, found.ordered, where)
    cases, refused = _golden(found.cases, labels)
    title = _title(front, text) or policy_id.replace("_", " ").capitalize()
    notes = [*found.left, *unused, *wrong, *_unknown(chosen), *refused]
    if not text:
        text = filled("blank.md", title=title)
        notes.append(Problem("", None, "no policy text was found: fill in what is in brackets"))
    written = _policy_file(policy_id, title, labels, text)
    files = {
        folder / policy_id / "policy.md": written,
        folder / policy_id / "golden.jsonl": "".join(f"{_line(case)}\n" for case in cases),
    }
    _check(written, chosen, next(iter(files)))
    create(files)
    load_golden(folder / policy_id)
    count = Counter(case.label for case in cases)
    safe, violating = (
        tuple(name for name, label in labels.items() if label.violates == side)
        for side in (False, True)
    )
    counts = {name: count[name] for name in labels}
    return Imported(tuple(files), len(cases), counts, safe, violating, tuple(notes))


def _found(sources: Sequence[Path]) -> Found:
    """What all files hold. Raises `Problems` with all that is wrong, or where it is nothing."""
    found, problems = Found(), list[Problem]()
    for file in [file for source in sources for file in _files(source)]:
        kind = KINDS.get(file.suffix.lower())
        if kind is None:
            what = f"a file of another kind than {_ENDINGS}"
            found += Found(left=[not_placed(str(file), None, what)])
            continue
        try:
            found += _read(file, kind)
        except FileNotFoundError:
            problems.append(Problem(str(file), None, "no such file"))
        except Problems as error:
            problems += error.problems
    if problems:
        raise Problems(problems)
    if not found.cases and not found.texts:
        raise Problems(
            [
                *found.left,
                Problem(str(sources[0]), None, "no policy and no case in it", f"files: {_ENDINGS}"),
            ]
        )
    return found


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    return sorted(file for file in source.iterdir() if file.is_file() and file.name[0] != ".")


def _read(file: Path, kind: str) -> Found:
    text, name = read_text(file, LONGEST_GOLDEN), str(file)
    match kind:
        case "text":
            return Found([PolicyText(name, 1, text.strip())] if text.strip() else [])
        case "markdown":
            return found_markdown(text, name)
        case "sheet":
            return found_sheet(text, name)
        case "lines":
            return found_lines(text, name)
    return found_data(text, name, kind)


def _policy_text(found: Found) -> tuple[PolicyText | None, list[Problem]]:
    """The policy's text, and those that are not taken.

    Raises:
        Problems: There are several, and no file's name says which one.
    """
    by_name = [text for text in found.texts if "policy" in Path(text.file).stem.lower()]
    chosen = by_name if len(by_name) == 1 else found.texts
    if len(chosen) > 1:
        hint = "name the files of one policy, or call its text's file policy"
        raise Problems(
            [Problem(text.file, text.line, "one of several texts", hint) for text in chosen]
        )
    unused = [text for text in found.texts if text not in chosen]
    left = [not_placed(text.file, text.line, "a text beside the policy's") for text in unused]
    return (chosen[0] if chosen else None), left


def _unknown(text: PolicyText | None) -> list[Problem]:
    """Keys of a front matter that are not taken."""
    keys = [key for key in (text.front if text else {}) if key not in ("title", "name", "labels")]
    return [not_placed(text.file, 1, f"{key!r} of the front matter") for key in keys if text]


def _golden(
    found: Sequence[FoundCase], labels: Mapping[str, Label]
) -> tuple[list[GoldenCase], list[Problem]]:
    """The cases that a golden set may hold, and why the others are none."""
    cases, refused = [], []
    for case in found:
        try:
            golden = GoldenCase.model_validate(
                {"content": case.content, "label": case.label, **case.more}
            )
        except ValidationError as error:
            refused.append(not_placed(case.file, case.line, error.errors()[0]["msg"]))
            continue
        if case.label in labels:
            cases.append(golden)
        else:
            what = f"label {case.label!r}, which is none of {', '.join(labels)}"
            refused.append(not_placed(case.file, case.line, what))
    return cases, refused


def _line(case: GoldenCase) -> str:
    return json.dumps(case.model_dump(mode="json", exclude_none=True), ensure_ascii=False)


def _title(front: Mapping[str, object], text: str) -> str:
    """The front matter's, or the text's first line where it is short."""
    written = front.get("title", front.get("name"))
    first = text.split("\n", 1)[0].strip("#* \t")
    title = written if isinstance(written, str) else first if len(first) <= _LONGEST_TITLE else ""
    return "".join(letter for letter in " ".join(title.split()) if letter.isprintable())


def _policy_file(policy_id: str, title: str, labels: Mapping[str, Label], text: str) -> str:
    """As `policy new` writes it. A JSON string is one of YAML."""
    lines = [
        f"  {json.dumps(name)}: {{violates: {json.dumps(label.violates)}, "
        f"title: {json.dumps(label.title, ensure_ascii=False)}}}"
        for name, label in labels.items()
    ]
    return filled(
        "policy.md",
        id=policy_id,
        title=json.dumps(title, ensure_ascii=False),
        labels="\n".join(lines),
        text=text.rstrip(),
    )


def _check(written: str, text: PolicyText | None, file: Path) -> None:
    """Raises `Problems` where the policy would not load."""
    try:
        written.encode()
    except UnicodeEncodeError:
        message = "the text has half of a surrogate pair, which no text can hold"
        raise Problems([Problem(text.file if text else "", None, message)]) from None
    parse_policy(written, str(file))
