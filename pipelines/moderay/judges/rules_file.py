"""`rules.yaml` -> `Rules`, with every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from moderay.config import yaml_document
from moderay.config.policy import Policy
from moderay.config.yaml_document import Document
from moderay.core.errors import Problem, Problems, first_line, nearest
from moderay.corpus.where import EACH_ROW, File, row_by_row, where_columns, where_wrong
from moderay.judges.literals import Literals
from moderay.judges.rules import Rule, Rules

FILE = "rules.yaml"
CONDITIONS = ("any_of", "pattern", "shorter_than", "where")
# Of many literals only the first are named in a problem.
NAMED = 3

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "id": ((str,), "a text"),
    "label": ((str, int), "one of the policy's labels"),
    "pass": ((bool,), "true"),
    "any_of": ((list, str), "a list of literals or the name of a file in the policy folder"),
    "words": ((bool,), "true or false"),
    "pattern": ((str,), "a regular expression"),
    "shorter_than": ((int,), "a number of characters, at least 2"),
    "where": ((str,), "Polars SQL"),
}
_OUTCOME = "label: one of {labels}, which settles; or pass: true, an exception for the next judge"
_LINEAR = (
    "patterns take linear time: no look-around and no back-references; for an exception "
    "write a rule with pass: true before this one"
)


def load_rules(policy: Policy, folder: str | Path) -> Rules | None:
    """Read `<folder>/rules.yaml` and the files of literals it names; None where there are no rules.
    Raises `Problems` with a line for everything wrong.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return None
    document = yaml_document.read(
        file, "a file of rules is keys and values", "begin with rules: and below it - id: ..."
    )
    for name in document.data:
        if name != "rules":
            document.wrong(name, f"unknown key {name!r}", nearest(name, ["rules"]))
    given = document.data.get("rules")
    if not isinstance(given, list) or not given:
        document.wrong(
            "rules",
            "there is no list of rules",
            "rules: and below it - {id: too-short, pass: true, shorter_than: 3}",
        )
        given = []
    _ids(document, given)
    rules = {
        f"rules.{number}": _rule(document, f"rules.{number}", item, policy, file.parent)
        for number, item in enumerate(given)
    }
    sound = {key: rule for key, rule in rules.items() if rule is not None}
    _contradictions(document, sound)
    if document.problems:
        found = dict.fromkeys(problem for _, problem in document.problems)
        raise Problems(
            sorted(found, key=lambda problem: (problem.file != str(file), problem.line or 0))
        )
    return Rules(policy, str(file), tuple(sound.values()))


def check_rules(rules: Rules, files: Sequence[File]) -> list[Problem]:
    """What is wrong with the rules' `where` under the schemas of the input's shards; one line for a
    problem of many shards.
    """
    problems = []
    for rule in rules.rules:
        if rule.where is None:
            continue
        expression, names = pl.sql_expr(rule.where), where_columns(rule.where)
        shards: dict[tuple[str, str], list[str]] = {}
        for shard, schema in files:
            for _, message, hint in where_wrong(expression, names, shard, schema):
                shards.setdefault((message, hint), []).append(shard.file)
        for (message, hint), found in shards.items():
            more = f" (and {len(found) - 1:,} more shards)" if len(found) > 1 else ""
            problems.append(
                Problem(
                    rules.file, rule.line, f"rule {rule.id!r}: {found[0]}{more}: {message}", hint
                )
            )
    return problems


def _ids(document: Document, given: Sequence[object]) -> None:
    first: dict[str, int] = {}
    for number, item in enumerate(given):
        name, key = item.get("id") if isinstance(item, dict) else None, f"rules.{number}.id"
        if isinstance(name, str) and first.setdefault(name, number) != number:
            document.wrong(
                key,
                f"two rules have the id {name!r}",
                f"the other stands in line {document.origin.lines[f'rules.{first[name]}.id']}",
            )


def _rule(document: Document, key: str, item: object, policy: Policy, folder: Path) -> Rule | None:
    """One rule; None where something is wrong with it, which is then noted in the document."""
    if not isinstance(item, dict):
        document.wrong(key, "a rule is keys and values", f"valid: {', '.join(_KINDS)}")
        return None
    noted = len(document.problems)
    given = _well_formed(document, key, item)
    label = _outcome(document, key, item, given, policy)
    if item.keys() <= _KINDS.keys() - set(CONDITIONS):
        document.wrong(
            key,
            f"{_called(given)} has no condition, so it would hold for every row",
            f"valid: {', '.join(CONDITIONS)}",
        )
    if "words" in item and "any_of" not in item:
        document.wrong(f"{key}.words", "words says how any_of is matched, and there is no any_of")
    texts = _literals(document, key, given, folder)
    _check_pattern(document, key, given)
    _check_where(document, key, given)
    if len(document.problems) > noted:
        return None
    return Rule(
        id=given["id"],
        label=label,
        line=document.origin.lines[key],
        literals=Literals.of(texts, given.get("words", False)) if texts else None,
        pattern=given.get("pattern"),
        shorter_than=given.get("shorter_than"),
        where=given.get("where"),
    )


def _well_formed(document: Document, key: str, item: dict[str, Any]) -> dict[str, Any]:
    """The known keys with a value of the right kind."""
    found = {}
    for name, value in item.items():
        if name not in _KINDS:
            document.wrong(f"{key}.{name}", f"unknown key {name!r}", nearest(name, _KINDS))
            continue
        kinds, words = _KINDS[name]
        fits = (
            isinstance(value, kinds)
            and (bool in kinds or not isinstance(value, bool))
            and value not in ("", [])
        )
        if not fits or (name == "pass" and not value) or (name == "shorter_than" and value < 2):
            document.wrong(f"{key}.{name}", f"{name}: should be {words}, not {value!r}")
        else:
            found[name] = value.strip() if name == "where" else value
    if "id" not in item:
        document.wrong(
            key,
            "a rule without id",
            "id: a name, which the rationale of the rows it settles will be",
        )
    return found


def _called(given: dict[str, Any]) -> str:
    return f"rule {given['id']!r}" if "id" in given else "this rule"


def _outcome(
    document: Document, key: str, item: dict[str, Any], given: dict[str, Any], policy: Policy
) -> str | None:
    hint = _OUTCOME.format(labels=", ".join(policy.label_names))
    if ("label" in item) == ("pass" in item):
        document.wrong(
            key,
            (
                f"{_called(given)} has "
                f"{'both label and pass' if 'label' in item else 'neither label nor pass'}"
            ),
            hint,
        )
    if "label" not in given:
        return None
    label = str(given["label"])  # YAML reads the label 0 as a number
    if label not in policy.labels:
        document.wrong(f"{key}.label", f"unknown label {label!r}", nearest(label, policy.labels))
    return label


def _literals(document: Document, key: str, given: dict[str, Any], folder: Path) -> list[str]:
    key, given_as = f"{key}.any_of", given.get("any_of", [])
    if isinstance(given_as, str):
        return _literals_of_file(document, key, given_as, folder)
    for number, text in enumerate(given_as):
        if not isinstance(text, str):
            document.wrong(f"{key}.{number}", f"any_of: {text!r} is no text", "put it in quotes")
        elif not text.strip():
            document.wrong(
                f"{key}.{number}",
                "any_of: an empty literal, which nearly every text holds",
                "take it out",
            )
    return [text for text in given_as if isinstance(text, str) and text.strip()]


def _literals_of_file(document: Document, key: str, name: str, folder: Path) -> list[str]:
    """One literal a line, without the white space around it; empty lines are none."""
    try:
        text = (folder / name).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        known = [file.name for file in folder.glob("*.txt")]
        document.wrong(
            key,
            f"any_of: no file {name!r} in this policy folder",
            nearest(name, known) if known else "a file with one literal a line, or a list",
        )
        return []
    except (OSError, UnicodeDecodeError) as error:
        document.wrong(key, f"any_of: {name!r} cannot be read: {error}")
        return []
    found = [literal for line in text.split("\n") if (literal := line.strip())]
    if not found:
        document.wrong(key, f"any_of: the file {name!r} holds no literal", "one literal a line")
    return found


def _check_pattern(document: Document, key: str, given: dict[str, Any]) -> None:
    try:
        pl.Series([""]).str.contains(given.get("pattern", "a"))
    except pl.exceptions.ComputeError as error:
        said = str(error).partition("\n\nThis error occurred")[0].removeprefix("regex error: ")
        what = said.rpartition("error: ")[2].strip()
        document.wrong(
            f"{key}.pattern",
            f"pattern: {what}",
            _LINEAR if "look-around" in what or "backreferences" in what else "",
        )


def _check_where(document: Document, key: str, given: dict[str, Any]) -> None:
    """By itself; `check_rules` looks at it under the input's columns."""
    if "where" not in given:
        return
    try:
        alone = where_columns(given["where"]) and row_by_row(pl.sql_expr(given["where"]))
    except pl.exceptions.PolarsError as error:
        document.wrong(f"{key}.where", f"where: {first_line(error)}")
        return
    if not alone:
        document.wrong(f"{key}.where", "where does not look at one row's columns", EACH_ROW)


def _contradictions(document: Document, rules: dict[str, Rule]) -> None:
    """A rule that holds only where an earlier one with another outcome holds as well, by equal
    conditions.
    """
    earlier: list[Rule] = []
    for key, rule in rules.items():
        for before in earlier:
            for condition, what in _taken(before, rule) if before.label != rule.label else ():
                first = f"rule {before.id!r} in line {before.line} holds first and {before.outcome}"
                sentence = f"rule {rule.id!r} {rule.outcome}, but never gets to {what}: {first}"
                document.wrong(
                    f"{key}.{condition}",
                    sentence,
                    "change the order of the two, or take it out of one of them",
                )
        earlier.append(rule)


def _taken(before: Rule, rule: Rule) -> Iterator[tuple[str, str]]:
    """What of a rule an earlier one takes, by equal conditions: the condition and a word for it."""
    others = [name for name in CONDITIONS[1:] if getattr(before, name) is not None]
    if any(getattr(before, name) != getattr(rule, name) for name in others):
        return
    if before.literals is None:
        yield from [(others[0], f"this {others[0]}")] if others else []
    elif rule.literals is not None and (rule.literals.words or not before.literals.words):
        both = sorted(set(before.literals.texts) & set(rule.literals.texts))
        if both:
            more = f" and {len(both) - NAMED:,} more" if len(both) > NAMED else ""
            yield "any_of", ", ".join(map(repr, both[:NAMED])) + more
