"""What is wrong with a file is told in the words of whoever wrote it, never in a library's."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from support.outputs import plain

from moderay.config.job import Job
from moderay.config.policy import GoldenCase, Policy, load_golden, load_policy
from moderay.config.validation import validation_problems
from moderay.config.yaml_document import Document, DocumentOrigin, plain_data
from moderay.core.errors import Problems

# Words of pydantic's messages, of Python's json and of its codecs.
LIBRARY = re.compile(
    r"Input|should be a valid|instance of|parse|dictionary|pattern|after validation|Value error"
    r"|delimiter|Expecting|codec|decode|Errno|None|True|False|pydantic|unexpected"
)
# One of each kind that YAML or JSON can hold.
VALUES: list[Any] = [
    None,
    True,
    "",
    "half",
    "1.0",
    -1,
    0,
    0.5,
    10**30,
    float("inf"),
    float("nan"),
    [],
    ["a"],
    [1],
    [[]],
    {},
    {"a": 1},
    datetime.date(2026, 11, 20),
    datetime.datetime(2026, 11, 20, 1, 2),
]
JOB: dict[str, Any] = {
    "name": "a",
    "date": "2026-11-20",
    "input": {"path": ["in"], "content": "text", "where": "n > 1", "sample": 0.5},
    "output": {"path": "out", "columns": ["a"], "reasoning": "all"},
    "policies": ["a"],
    "model": {
        "source": "tiny",
        "endpoint": None,
        "revision": "x",
        "effort": "low",
        "sampling": {"temperature": 1, "top_p": 1},
        "dtype": "auto",
        "quantization": "x",
        "kv_cache_dtype": "x",
        "engine": {},
        "replicas": {"min": 1, "max": 2},
    },
    "cascade": [
        *["rules", {"screen": {"path": "a", "force": True}}],
        *[{"glance": {"below": 0.1, "above": 0.9, "force": True}}, {"reason": {"budget": 5}}],
    ],
    "windows": {"tokens": 100, "overlap": 1, "max": 2},
    "unit": {"rows": 1, "bytes": "1MiB"},
    "limits": {
        "request_s": 1,
        "stall_s": 1,
        "grace_s": 1,
        "max_failed": 0.1,
        "gpu_hours": 1,
        "until": "2026-11-20T08:00",
    },
    "audit": 0.1,
    "reuse": ["a"],
    "filter": {
        "keep": "a",
        "out": "b",
        "thresholds": {"spam": 0.5},
        "unselected": "keep",
        "verdicts": True,
    },
    "alarms": {"flagged": 0.1, "drift": 0.1, "failed": 0.1, "tokens": 0.1},
    "storage": {"a": 1},
}
POLICY: dict[str, Any] = {
    "id": "spam",
    "title": "Spam",
    "version": 1,
    "answer": "label",
    "threshold": 0.5,
    "labels": {"A": {"violates": True, "title": "a"}, "B": {"violates": False}},
    "text": "x",
}
CASE: dict[str, Any] = {"content": "x", "label": "A", "boundary": True}
TURNS: dict[str, Any] = {**CASE, "content": [{"role": "user", "content": "x"}], "note": "a"}


def places(data: Any) -> Iterator[tuple[str | int, ...]]:
    """The way to everything in it."""
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in inner:
        yield (name,)
        if isinstance(value, dict | list):
            yield from ((name, *below) for below in places(value))


def replaced(data: Any, way: tuple[str | int, ...], value: Any) -> Any:
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[way[0]] = value if len(way) == 1 else replaced(data[way[0]], way[1:], value)
    return copy


@pytest.mark.parametrize(
    ("model", "sound"), [(Job, JOB), (Policy, POLICY), (GoldenCase, CASE), (GoldenCase, TURNS)]
)
def test_any_value_anywhere_is_told_in_words(model: type[BaseModel], sound: dict[str, Any]) -> None:
    model.model_validate(sound)
    refused = 0
    for way, value in itertools.product(list(places(sound)), VALUES):
        document = Document(plain_data(replaced(sound, way, value)), DocumentOrigin())
        try:
            model.model_validate(document.data)
        except ValidationError as error:
            problems = validation_problems(error, document, model)
            text = "\n".join(str(problem) for _, problem in problems)
            assert problems and not LIBRARY.search(text.replace("None", "")), text
            assert str(way[0]) in text, text
            refused += 1
    assert refused > len(sound) * 5


POLICIES = {
    "a list": "---\n- id: spam\n---\nText.\n",
    "labels as a list": "---\nid: spam\nlabels: [SP0, SP4]\n---\nText.\n",
    "labels without braces": "---\nid: spam\nlabels: {SP0: false, SP4: true}\n---\nText.\n",
    "violates maybe": (
        "---\nid: spam\nlabels:\n  A: {violates: maybe}\n  B: {violates: true}\n---\nText.\n"
    ),
    "one side only": "---\nid: spam\nlabels: {A: {violates: true}}\n---\nText.\n",
    "a label with a blank": (
        "---\nid: spam\nlabels: {A B: {violates: true}, C: {violates: false}}\n---\nText.\n"
    ),
    "threshold of half": "---\nid: spam\nthreshold: half\n---\nText.\n",
    "threshold in percent": "---\nid: spam\nthreshold: 50\n---\nText.\n",
    "version 1.0.2": '---\nid: spam\nversion: "1.0.2"\n---\nText.\n',
    "answer yes": "---\nid: spam\nanswer: yes\n---\nText.\n",
    "title on": "---\nid: spam\ntitle: on\n---\nText.\n",
    "id with a hyphen": "---\nid: hate-speech\n---\nText.\n",
    "no id": "---\ntitle: Spam\n---\nText.\n",
    "a key twice": "---\nid: spam\nid: ham\n---\nText.\n",
    "tabs": "---\nid: spam\nlabels:\n\tA: {violates: true}\n---\nText.\n",
    "a colon": "---\nid: spam\ntitle: Spam: all of it\n---\nText.\n",
    "no blank": "---\nid:spam\ntitle: x\n---\nText.\n",
    "only front matter": "---\nid: spam\n---",
    "no end": "---\nid: spam\n\nText.\n",
    "no front matter": "# Spam\n",
    "empty front matter": "---\n---\nText.\n",
    "empty": "",
    "blanks": " \n\n",
    "not UTF-8": b"---\nid: spam\ntitle: Caf\xe9\n---\nText.\n",
    "UTF-16": "---\nid: spam\n---\nText.\n".encode("utf-16"),
}


def test_policies_with_a_mistake_say_what_where_and_what_to_do(tmp_path: Path, golden) -> None:  # type: ignore[no-untyped-def]
    told = []
    for name, text in POLICIES.items():
        file = tmp_path / "policy.md"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(Problems) as caught:
            load_policy(tmp_path)
        told.append(f"# {name}\n{plain(str(caught.value), tmp_path)}\n")
        assert not LIBRARY.search(told[-1]), told[-1]
    golden("policy-mistakes", "".join(told))


@pytest.mark.parametrize(
    "text",
    [
        "---\r\nid: spam\r\n---\r\nText.\r\n",
        "\ufeff---\nid: spam\n---\nText.\n",
        "--- \nid: spam\n---  \nText.",
        "---\nid: spam\n---\n\n\nText.\n\n",
    ],
)
def test_line_ends_marks_and_blanks_make_no_other_policy(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_bytes(text.encode())
    policy = load_policy(tmp_path)
    assert (policy.id, policy.text) == ("spam", "Text.")


CASES = {
    "no label": '{"content": "a"}',
    "label misspelt": '{"content": "a", "label": "SP9"}',
    "a number": '{"content": "a", "label": 1}',
    "boundary hard": '{"content": "a", "label": "A", "boundary": "hard"}',
    "more keys": '{"content": "a", "label": "A", "reason": "b"}',
    "a turn of no text": '{"content": [{"role": "user"}], "label": "A"}',
    "no turns": '{"content": [], "label": "A"}',
    "half a character of a role": '{"content": [{"role": "\\ud8ff", "content": ""}], "label": "A"}',
    "content of a number": '{"content": 3, "label": "A"}',
    "no JSON": "content: a, label: A",
    "a comma at the end": '{"content": "a", "label": "A",}',
    "single quotes": "{'content': 'a', 'label': 'A'}",
    "cut off": '{"content": "a", "label": "A"',
    "a list": '["a", "A"]',
    "an empty line": "",
    "twice": '{"content": "a", "label": "A", "label": "B"}',
    "half a character": '{"content": "\\ud800", "label": "A"}',
    "too long a number": '{"content": ' + "9" * 5000 + "}",
}


def test_golden_cases_with_a_mistake_say_what_where_and_what_to_do(tmp_path: Path, golden) -> None:  # type: ignore[no-untyped-def]
    front = yaml.safe_dump({"id": "spam", "labels": POLICY["labels"]})
    (tmp_path / "policy.md").write_text(f"---\n{front}---\nText.\n")
    sound = json.dumps(CASE)
    (tmp_path / "golden.jsonl").write_text("\n".join([sound, *CASES.values(), sound]) + "\n")
    with pytest.raises(Problems) as caught:
        load_golden(tmp_path)
    assert [problem.line for problem in caught.value.problems] == list(range(2, len(CASES) + 2))
    assert not LIBRARY.search(str(caught.value)), str(caught.value)
    golden("golden-mistakes", plain(str(caught.value), tmp_path) + "\n")
    (tmp_path / "golden.jsonl").write_text("[]\n" * 1000)
    with pytest.raises(Problems, match="980 more problems like these"):
        load_golden(tmp_path)
    (tmp_path / "golden.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{sound}\r\n".encode())
    assert load_golden(tmp_path) == [GoldenCase(**CASE)]


@pytest.mark.parametrize("name", ["policy.md", "golden.jsonl"])
def test_pipe_for_a_policys_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_text("---\nid: spam\n---\nText.\n")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(Problems, match="cannot be read: it is a pipe, not a file"):
        load_golden(tmp_path)


def test_files_below_the_current_folder_are_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spam").mkdir()
    (tmp_path / "spam/policy.md").write_text("---\nid: -\n---\nText.\n")
    for folder, named in (("", "spam/policy.md:2: "), ("spam", "policy.md:2: ")):
        monkeypatch.chdir(tmp_path / folder)
        with pytest.raises(Problems) as caught:
            load_policy(tmp_path / "spam")
        assert str(caught.value).startswith(named)
    monkeypatch.chdir("/usr")
    with pytest.raises(Problems, match=f"^{tmp_path}/spam/policy.md:2: "):
        load_policy(tmp_path / "spam")
