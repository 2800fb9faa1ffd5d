"""`rules.yaml` -> `Rules`, with every problem at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderay.config import yaml_document
from moderay.config.bounded_yaml import shortened
from moderay.config.policy import Policy
from moderay.config.text_file import read_text
from moderay.config.yaml_document import Document
from moderay.core.errors import Problem, Problems, nearest
from moderay.core.patterns import pattern_problem
from moderay.core.sql.refusal import SqlRefusedError
from moderay.core.wording import counted
from moderay.corpus.where import File, row_condition, where_wrong
from moderay.judges.literals import Literals
from moderay.judges.rules import Rule, Rules

FILE = "rules.yaml"
CONDITIONS = ("any_of", "pattern", "shorter_than", "where")
# Of many literals only the first are named in a problem.
NAMED = 3
# Characters of a file of literals.
LONGEST_LITERALS = 2**24

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


def load_rules(policy: Policy, folder: str | Path) -> Rules | None:
    """Read `<folder>/rules.yaml` and the files of literals it names.

    Args:
        policy: Whose labels the rules answer.
        folder: The policy's.

    Returns:
        None where there is no such file.

    Raises:
        Problems: All that is wrong, with its lines.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return None
    document = yaml_document.read(
        file, "a file of rules is keys and values", "begin with rules: and below it - id: ..."
    )
    items = _items(document)
    _check_ids(document, items)
    rules = {
        f"rules.{number}": _RuleReader(document, f"rules.{number}", policy, file.parent).read(item)
        for number, item in enumerate(items)
    }
    sound = {key: rule for key, rule in rules.items() if rule is not None}
    _check_order(document, sound)
    if document.problems:
        problems = dict.fromkeys(problem for _, problem in document.problems)
        raise Problems(
            sorted(problems, key=lambda problem: (problem.file != str(file), problem.line or 0))
        )
    return Rules(policy, str(file), tuple(sound.values()))


def check_rules(rules: Rules, files: Sequence[File]) -> list[Problem]:
    """What is wrong with the rules' `where` under the schemas of the input's shards.

    A problem of many shards is one, and names the first of them.
    """
    problems = []
    for rule in rules.rules:
        if rule.where is None:
            continue
        condition = row_condition(rule.where)
        shards: dict[tuple[str, str], list[str]] = {}
        for shard, schema in files:
            for _, message, hint in where_wrong(condition, shard, schema):
                shards.setdefault((message, hint), []).append(shard.file)
        for (message, hint), (first, *others) in shards.items():
            more = f" (and {counted(len(others), 'more shard')})" if others else ""
            text = f"rule {rule.id!r}: {first}{more}: {message}"
            problems.append(Problem(rules.file, rule.line, text, hint))
    return problems


def _items(document: Document) -> list[Any]:
    """What stands in the list of rules."""
    for name in document.data:
        if name != "rules":
            document.wrong(name, f"unknown key {name!r}", nearest(name, ["rules"]))
    items = document.data.get("rules")
    if isinstance(items, list) and items:
        return items
    hint = "rules: and below it - {id: too-short, pass: true, shorter_than: 3}"
    document.wrong("rules", "there is no list of rules", hint)
    return []


def _check_ids(document: Document, items: Sequence[object]) -> None:
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        name = item.get("id") if isinstance(item, dict) else None
        if isinstance(name, str) and first.setdefault(name, number) != number:
            document.wrong(
                f"rules.{number}.id",
                f"two rules have the id {name!r}",
                f"the other stands in line {document.origin.lines[f'rules.{first[name]}.id']}",
            )


@dataclass(frozen=True)
class _RuleReader:
    """Reads one rule of a document, and notes there what is wrong with it.

    Attributes:
        document: The file of rules.
        key: The rule's dotted key in it.
        policy: Whose labels rules answer.
        folder: The policy's, where files of literals lie.
    """

    document: Document
    key: str
    policy: Policy
    folder: Path

    def read(self, item: object) -> Rule | None:
        """The rule; None where something is wrong with it."""
        if not isinstance(item, dict):
            self._wrong("", "a rule is keys and values", f"valid: {', '.join(_KINDS)}")
            return None
        noted = len(self.document.problems)
        values = self._well_formed(item)
        label = self._label(item, values)
        if item.keys() <= _KINDS.keys() - set(CONDITIONS):
            message = f"{_called(values)} has no condition, so it would hold for every row"
            self._wrong("", message, f"valid: {', '.join(CONDITIONS)}")
        if "words" in item and "any_of" not in item:
            self._wrong("words", "words says how any_of is matched, and there is no any_of")
        texts = self._literals(values.get("any_of", []))
        self._check_pattern(values.get("pattern", ""))
        self._check_where(values.get("where"))
        if len(self.document.problems) > noted:
            return None
        return Rule(
            id=values["id"],
            label=label,
            line=self.document.origin.lines[self.key],
            literals=Literals.of(texts, values.get("words", False)) if texts else None,
            pattern=values.get("pattern"),
            shorter_than=values.get("shorter_than"),
            where=values.get("where"),
        )

    def _wrong(self, name: str, message: str, hint: str = "") -> None:
        """Note a problem with a key of the rule, or with the rule as a whole."""
        self.document.wrong(f"{self.key}.{name}" if name else self.key, message, hint)

    def _well_formed(self, item: dict[str, Any]) -> dict[str, Any]:
        """The known keys with a value of the right kind."""
        values = {}
        for name, value in item.items():
            if name not in _KINDS:
                self._wrong(name, f"unknown key {name!r}", nearest(name, _KINDS))
            elif not _fits(name, value):
                self._wrong(name, f"{name}: should be {_KINDS[name][1]}, not {value!r}")
            else:
                values[name] = value.strip() if name == "where" else value
        if "id" not in item:
            hint = "id: a name, which the rationale of the rows it settles will be"
            self._wrong("", "a rule without id", hint)
        return values

    def _label(self, item: dict[str, Any], values: dict[str, Any]) -> str | None:
        """The label that the rule answers; None where it passes on."""
        if ("label" in item) == ("pass" in item):
            has = "both label and pass" if "label" in item else "neither label nor pass"
            hint = _OUTCOME.format(labels=", ".join(self.policy.label_names))
            self._wrong("", f"{_called(values)} has {has}", hint)
        if "label" not in values:
            return None
        labels = self.policy.labels
        label = str(values["label"])  # YAML reads the label 0 as a number
        if label not in labels:
            self._wrong("label", f"unknown label {label!r}", nearest(label, labels))
        return label

    def _literals(self, any_of: str | list[Any]) -> list[str]:
        """The literals in a list, or in the file of this name."""
        if isinstance(any_of, str):
            return self._literals_of_file(any_of)
        texts = []
        for number, text in enumerate(any_of):
            name = f"any_of.{number}"
            if not isinstance(text, str):
                self._wrong(name, f"any_of: {text!r} is no text", "put it in quotes")
            elif not text.strip():
                message = "any_of: an empty literal, which nearly every text holds"
                self._wrong(name, message, "take it out")
            else:
                texts.append(text)
        return texts

    def _literals_of_file(self, name: str) -> list[str]:
        """One literal a line, without the white space around it; empty lines are none."""
        if not _lies_in(name, self.folder):
            message = f"any_of: {shortened(name)!r} lies outside this policy folder"
            self._wrong("any_of", message, "put the file of literals beside rules.yaml")
            return []
        try:
            text = read_text(self.folder / name, LONGEST_LITERALS, "make two lists of it")
        except FileNotFoundError:
            known = [file.name for file in self.folder.glob("*.txt")]
            hint = nearest(name, known) if known else "a file with one literal a line, or a list"
            self._wrong("any_of", f"any_of: no file {name!r} in this policy folder", hint)
            return []
        except Problems as error:
            for problem in error.problems:
                self._wrong("any_of", f"any_of: {name!r} {problem.message}", problem.hint)
            return []
        literals = [literal for line in text.split("\n") if (literal := line.strip())]
        if not literals:
            message = f"any_of: the file {name!r} holds no literal"
            self._wrong("any_of", message, "one literal a line")
        return literals

    def _check_pattern(self, pattern: str) -> None:
        if problem := pattern_problem(pattern):
            what, hint = problem
            self._wrong("pattern", f"pattern: {what}", hint)

    def _check_where(self, where: str | None) -> None:
        """By itself; `check_rules` looks at it under the input's columns."""
        if where is None:
            return
        try:
            row_condition(where)
        except SqlRefusedError as error:
            self._wrong("where", f"where: {error.reason}", error.hint)


def _fits(name: str, value: object) -> bool:
    """Whether a value is of the kind that its key takes."""
    kinds = _KINDS[name][0]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    if name == "shorter_than":
        return isinstance(value, int) and value >= 2
    return value is True if name == "pass" else value not in ("", [])


def _lies_in(name: str, folder: Path) -> bool:
    """Whether a file lies in a folder, links followed: literals are shown, and end in manifests."""
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle
        return False


def _called(values: dict[str, Any]) -> str:
    return f"rule {values['id']!r}" if "id" in values else "this rule"


def _check_order(document: Document, rules: dict[str, Rule]) -> None:
    """Note a rule that holds only where an earlier one of another outcome does.

    That they do is known of equal conditions alone.
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
