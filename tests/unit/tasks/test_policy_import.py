"""`policy import`: what others publish becomes a policy that loads; what has no place is named."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.project import ROOT, SHARED

from moderay.config.policy import GoldenCase, Policy, load_golden, load_policy
from moderay.core.errors import Problems, UserError
from moderay.tasks.policy.importing.importing import Imported, import_policy

Cli = Callable[..., subprocess.CompletedProcess[str]]
PACK = SHARED / "spam_pack"


def imported(tmp_path: Path, **files: str) -> tuple[Imported, Policy, list[GoldenCase]]:
    """Import files of these texts; `__` in a keyword is the dot of the name."""
    sources = []
    for name, text in files.items():
        source = tmp_path / name.replace("__", ".")
        source.write_text(text)
        sources.append(source)
    made = import_policy(sources, "made", tmp_path / "policies")
    folder = tmp_path / "policies/made"
    return made, load_policy(folder), load_golden(folder)


def left(made: Imported) -> list[str]:
    """What was not placed, as `line: what`."""
    return [f"{note.line}: {note.message.removeprefix('not placed: ')}" for note in made.notes]


def refused(tmp_path: Path, **files: str) -> list[str]:
    """What is said of files that make no policy; nothing is written."""
    with pytest.raises(Problems) as error:
        imported(tmp_path, **files)
    assert not (tmp_path / "policies").exists()
    return [f"{problem.line}: {problem.message}" for problem in error.value.problems]


def lines(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# As the published pack has it: a header over one column, a row for each label, a footer.
RAGGED = """\
,,,,a model's answer,
MI0,,,,,
1,Good morning,,,MI0,
2,"See you, at ten",,,MI2,
MI2 ,,,,,
1,"A boat, and
a second line",,,MI2,
,,,,,
,,,,Accuracy,0.67
"""


def test_sheet_with_a_row_for_each_label_gives_the_labels_of_people(tmp_path: Path) -> None:
    text = "Missing\n✅ Nothing (MI0 – no case of it)\n🚫 Too much (MI2 – some)\n"
    made, policy, golden = imported(tmp_path, policy__txt=text, cases__csv=RAGGED)
    assert policy.text == text.strip() and policy.title == "Missing"
    assert {name: (label.violates, label.title) for name, label in policy.labels.items()} == {
        "MI0": (False, "Nothing"),
        "MI2": (True, "Too much"),
    }
    assert [(case.content, case.label) for case in golden] == [
        ("Good morning", "MI0"),
        ("See you, at ten", "MI0"),
        ("A boat, and\na second line", "MI2"),
    ]
    assert left(made) == [
        "1: column 1: numbers",
        "1: column 5 (a model's answer): a second label of each case, and the heading rows are "
        "taken as right; the same in 2 of 3",
        "9: 'Accuracy, 0.67'",
    ]
    assert (made.cases, made.labels) == (3, {"MI0": 2, "MI2": 1})
    assert (made.safe, made.violating) == (("MI0",), ("MI2",))


@pytest.mark.skipif(not PACK.exists(), reason="the spam pack is not beside the checkout")
def test_published_spam_pack_has_forty_cases_and_its_figures(tmp_path: Path, cli: Cli) -> None:
    result = cli("policy", "import", PACK, "--id", "spam_pack", "--out", tmp_path)
    assert result.returncode == 0
    policy, golden = load_policy(tmp_path / "spam_pack"), load_golden(tmp_path / "spam_pack")
    assert policy.text == (PACK / "policy.txt").read_text().strip()
    assert Counter(case.label for case in golden) == {"SP0": 18, "SP2": 7, "SP3": 8, "SP4": 7}
    assert [label.violates for label in policy.labels.values()] == [False, True, True, True]
    assert [label.title for label in policy.labels.values()] == [
        "Allowed Content",
        "Likely Spam",
        "High-Risk Spam",
        "Malicious Spam",
    ]
    assert "40 golden cases: SP0 18, SP2 7, SP3 8, SP4 7" in result.stdout
    assert "the same in 36 of 40" in result.stderr  # the accuracy that its footer gives
    for line, figure in ((48, "Accuracy, 0.9"), (51, "F1, 0.8888888889")):
        assert f"golden_dataset.csv:{line}: not placed: '{figure}'" in result.stderr
    assert result.stderr.count("not placed") == 6


def test_sheet_under_a_header_is_read_by_its_names(tmp_path: Path) -> None:
    text = "id;Text;Label;lang\n7;hello;ok;en\n8;buy;spam;de;more\n9;;spam;en\n"
    made, policy, golden = imported(tmp_path, cases__csv=text)
    assert [(c.content, c.label, c.language) for c in golden] == [
        ("hello", "ok", "en"),
        ("buy", "spam", "de"),
    ]
    assert list(policy.labels) == ["ok", "spam"] and policy.labels["spam"].violates
    assert left(made)[:3] == [
        "4: no content among the keys id, Label, lang",
        "2: 'id', in 2 cases",
        "3: cells that no header names: 'more'",
    ]
    assert "no policy text" in left(made)[3] and "[fill in: why.]" in policy.text


@pytest.mark.parametrize(
    ("record", "content", "label"),
    [
        ({"prompt": "a b", "label": 1}, "a b", "1"),
        ({"Input": "a b", "Expected Output": True}, "a b", "1"),
        ({"content": " a b ", "gold": "false"}, "a b", "0"),
        ({"text": "a b", "violation": 0.0}, "a b", "0"),
        ({"user_input": "a b", "model_output": "c", "toxicity": 1}, "a b", "1"),
        ({"text": "a b", "labels": ["Not Spam"]}, "a b", "Not_Spam"),
        ({"messages": [{"role": "user", "content": "a b"}], "label": "no-go"}, "a b", "no-go"),
        (
            {
                "messages": [{"from": "user", "value": "a"}, {"from": "bot", "value": "b"}],
                "gold": 1,
            },
            [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}],
            "1",
        ),
        (
            {
                "messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}],
                "gold": 1,
            },
            "a b",
            "1",
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "No boats."},
                    {"role": "user", "content": "a b"},
                    {"role": "assistant", "content": "VALID"},
                ]
            },
            "a b",
            "VALID",
        ),
    ],
)
def test_record_is_read_by_the_usual_names(
    record: dict[str, Any], content: object, label: str, tmp_path: Path
) -> None:
    other = {"prompt": "x", "label": "VALID" if label == "no-go" else "bad"}
    if label in ("0", "1"):
        other["label"] = "1" if label == "0" else "0"
    _, policy, golden = imported(tmp_path, cases__jsonl=lines(record, other))
    dumped = golden[0].model_dump(mode="json")
    assert (dumped["content"], dumped["label"]) == (content, label)
    assert policy.labels.keys() == {label, other["label"]}
    assert policy.labels[label].violates != (label in ("0", "Not_Spam", "VALID"))


def test_policy_that_stands_in_each_record_is_the_text(tmp_path: Path) -> None:
    record = {"policy": "# Boats\nNo boats.", "prompt": "a", "label": 1}
    _, policy, _ = imported(tmp_path, a__jsonl=lines(record, {**record, "label": 0}))
    assert (policy.title, policy.text) == ("Boats", "# Boats\nNo boats.")


def test_further_keys_are_kept_and_unknown_ones_named_once(tmp_path: Path) -> None:
    record = {"prompt": "a", "label": 0, "lang": "de", "source": "a blog", "notes": "why", "n": 1}
    hard = {"prompt": "b", "label": 1, "boundary": True, "language": 7, "n": 2}
    made, _, golden = imported(tmp_path, policy__txt="x", a__jsonl=lines(record, hard))
    assert golden[0].model_dump(exclude={"content", "label"}) == {
        "boundary": False,
        "language": "de",
        "source": "a blog",
        "note": "why",
    }
    assert golden[1].boundary and golden[1].language is None
    assert left(made) == ["1: 'n', in 2 cases"]


def test_lines_that_are_no_cases_are_named_each(tmp_path: Path) -> None:
    good = {"prompt": "a", "label": "safe"}
    text = (
        lines(good, {**good, "label": "unsafe"})
        + "no json\n\n"
        + lines(
            ["a"],
            {"prompt": "b"},
            {"title": "c", "label": 1},
            {"prompt": 7, "label": "safe"},
            {"prompt": " ", "label": "safe"},
            {"prompt": "d", "label": "..?"},
            {"prompt": "d", "label": ["safe", "unsafe"]},
            {"prompt": "\ud800", "label": "safe"},
        )
    )
    made, _, golden = imported(tmp_path, policy__txt="x", a__jsonl=text)
    assert len(golden) == 3  # "..?" makes a name of dots, and the surrogate none
    assert [note.line for note in made.notes] == [6, 7, 8, 9, 11, 3, 5, 12]
    said = "\n".join(left(made))
    for words in (
        "no label among the keys prompt",
        "no content among the keys title, label",
        "neither a text nor a conversation",
        "the content is empty",
        "can be no name",
        "no JSON object",
        "half of a surrogate pair",
    ):
        assert words in said, words


MARKDOWN = """\
---
title: "No boats: a policy"
author: somebody
labels: {BO0: {violates: false}, BO1: {violates: true, title: Boats}}
---
# No boats

## VIOLATES
BO1, boats.

```yaml
window: 12
```

## Cases

```yaml
cases:
  - content: a boat
    label: BO1
  - content: a car
    label: BO0
    language: en
  - content: a plane
    label: BO2
```

## SAFE
BO0, cars.

```json
[
  {"prompt": "two boats", "label": "BO1"},

  {"prompt": "two cars", "weight": 1, "label": "BO0"}
]
```

```jsonl
{"prompt": "three boats", "label": "BO1"}
```

```json
{"prompt": "four boats", "label": "BO1"}
{"prompt": "five boats", "label": "BO1"}
```

```python
print("a boat")
```
"""


def test_cases_are_taken_out_of_the_blocks_of_markdown(tmp_path: Path) -> None:
    made, policy, golden = imported(tmp_path, rules__md=MARKDOWN)
    assert policy.title == "No boats: a policy"
    assert policy.labels["BO1"].title == "Boats"
    assert [case.content for case in golden] == [
        "a boat",
        "a car",
        "two boats",
        "two cars",
        "three boats",
        "four boats",
        "five boats",
    ]
    assert golden[1].language == "en"
    assert policy.text == (
        "# No boats\n\n## VIOLATES\nBO1, boats.\n\n```yaml\nwindow: 12\n```\n\n"
        '## SAFE\nBO0, cars.\n\n```python\nprint("a boat")\n```'
    )
    assert left(made) == [
        "12: no content and label among its keys",
        "11: a block of yaml without cases: it stays in the text",
        "35: 'weight', in 1 case",
        "1: 'author' of the front matter",
        "24: label 'BO2', which is none of BO0, BO1",
    ]


@pytest.mark.parametrize("name", ["cases__json", "cases__yaml"])
def test_data_may_be_a_list_or_stand_under_a_key(name: str, tmp_path: Path) -> None:
    cases = [{"text": 'a "quoted" \U0001f600', "label": "ok"}, {"text": "b", "label": "bad"}]
    data: object = cases if "yaml" in name else {"of": "x", "tests": [*cases, {"text": 1}, "c"]}
    text = json.dumps(data, indent=1, ensure_ascii=False)
    made, _, golden = imported(tmp_path, policy__md="# P", **{name: text})
    assert [case.content for case in golden] == [case["text"] for case in cases]
    if "json" in name:
        assert left(made) == ["12: the text is neither a text nor a conversation"]


def test_labels_by_number_are_in_their_order(tmp_path: Path) -> None:
    records = [{"text": name, "label": name} for name in ("S10", "S2", "S0", "not_s", "S1")]
    _, policy, _ = imported(tmp_path, a__jsonl=lines(*records))
    assert list(policy.labels) == ["not_s", "S0", "S1", "S2", "S10"]
    assert policy.violating == (False, False, True, True, True)


def test_text_alone_is_a_binary_policy_without_cases(tmp_path: Path) -> None:
    made, policy, golden = imported(tmp_path, a__txt="---\nNo boats: $5 each.\n")
    assert (list(policy.labels), golden, made.cases) == (["0", "1"], [], 0)
    assert policy.text == "---\nNo boats: $5 each."


@pytest.mark.parametrize(
    ("files", "messages"),
    [
        ({"a__csv": "x,y\n1,2\n"}, ["1: no header that names a content and a label"]),
        ({"a__json": "[1"}, ["1: no JSON"]),
        ({"a__yaml": "a: 1\nb: [\n", "b__json": "{}"}, ["3: no YAML", "1: no content and label"]),
        ({"a__jsonl": "\n"}, ["None: no policy and no case in it"]),
        ({"a__jsonl": lines({"text": "a", "label": "bad"})}, ["None: cases of one side only"]),
        ({"a__txt": "x", "b__md": "y"}, ["1: one of several texts", "1: one of several texts"]),
        ({"a__parquet": "x"}, ["None: not placed: a file of another kind", "None: no policy"]),
    ],
)
def test_files_that_make_no_policy_are_refused_with_all_that_is_wrong(
    files: dict[str, str], messages: list[str], tmp_path: Path
) -> None:
    said = refused(tmp_path, **files)
    assert len(said) == len(messages)
    assert all(line.startswith(message) for line, message in zip(said, messages, strict=True)), said


def test_text_is_the_one_that_is_called_policy(tmp_path: Path) -> None:
    made, policy, _ = imported(tmp_path, README__md="# About", my_policy__txt="No boats.")
    assert policy.text == "No boats."
    assert left(made) == ["1: a text beside the policy's"]


def test_no_file_is_overwritten_and_no_wrong_id_taken(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/golden.jsonl").write_text("mine")
    source = tmp_path / "a.txt"
    source.write_text("No boats.")
    result = cli("policy", "import", source, "--id", "made", "--out", tmp_path)
    assert result.returncode == 2 and "golden.jsonl: is there already" in result.stderr
    assert (tmp_path / "made/golden.jsonl").read_text() == "mine"
    assert not (tmp_path / "made/policy.md").exists()
    with pytest.raises(UserError, match="is no id of a policy"):
        import_policy([source], "Made-1", tmp_path)
    with pytest.raises(Problems, match="no such file"):
        import_policy([tmp_path / "none.csv"], "made_2", tmp_path)


def test_policy_of_ours_comes_back_as_it_was(tmp_path: Path) -> None:
    """Its Markdown and its golden set are among what can be read."""
    spam = ROOT / "policies/spam"
    import_policy([spam / "policy.md", spam / "golden.jsonl"], "spam", tmp_path)
    made, own = load_policy(tmp_path / "spam"), load_policy(spam)
    assert (made.text, made.labels, made.title) == (own.text, own.labels, own.title)
    assert load_golden(tmp_path / "spam") == load_golden(spam)
