"""What people write, or have from others, cannot take a process's time, memory or secrets."""

import os
import re
from pathlib import Path

import pytest
from support.patience import within
from support.project import ROOT

from moderay.config.bounded_yaml import DEEPEST, LONGEST_NUMBER, MOST_NODES
from moderay.config.job_file import draft_job, load_job
from moderay.config.policy import LONGEST_GOLDEN, load_golden, load_policy
from moderay.config.text_file import LONGEST
from moderay.core.errors import Problems, UserError
from moderay.judges.rules_file import load_rules
from moderay.tasks.submit.kuberay import load_cluster

FRONT = "id: spam\nlabels: {A: {violates: true}, B: {violates: false}}\n"
POLICY = load_policy(ROOT / "policies/spam")

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
# Each with a word of the sentence that refuses it.
HOSTILE = {
    "laughs": (LAUGHS, "each alias counted as what it stands for"),
    "long laughs": (
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1_000)}]\n",
        "each alias counted as what it stands for",
    ),
    "anchor in itself": ("a: &a [x, *a]\n", "*a stands inside the anchor it names"),
    "anchor in itself, deep": ("a: &a {b: {c: [*a]}}\n", "*a stands inside the anchor it names"),
    "key in itself": ("? &a [*a]\n: x\n", "*a stands inside the anchor it names"),
    "no anchor": ("a: *b\n", "found undefined alias 'b'"),
    "deep list": ("a: " + "[" * 3_000 + "]" * 3_000, f"nested deeper than {DEEPEST} levels"),
    "deep keys": ("a: " + "{a: " * 3_000 + "}" * 3_000, f"nested deeper than {DEEPEST} levels"),
    "deep blocks": (
        "".join(" " * n + "a:\n" for n in range(1_000)),
        f"nested deeper than {DEEPEST} levels",
    ),
    "deep dashes": ("a:\n" + "- " * 3_000 + "x", f"nested deeper than {DEEPEST} levels"),
    "open brackets": ("a: " + "[" * 100_000, f"nested deeper than {DEEPEST} levels"),
    "many nodes": ("a: [" + "x, " * (MOST_NODES + 1) + "]", f"more than {MOST_NODES:,}"),
    "large": ("a: " + "x" * (LONGEST + 1), f"longer than {LONGEST:,} characters"),
    "object": ("a: !!python/object/apply:os.system [id]", "the tag tag:yaml.org,2002:python/obj"),
    "own tag": ("a: !secret x", "the tag !secret is not read"),
    "empty number": ("a: !!int ''", "the tag tag:yaml.org,2002:int is not read"),
    "binary": ("a: !!binary aGk=", "the tag tag:yaml.org,2002:binary is not read"),
    "NUL": ('a: "x\\0y"', "a character that no text can hold"),
    "half a pair": ('a: "x\\ud800y"', "a character that no text can hold"),
    "twice": ("a: 1\na: 2\n", "'a' stands twice"),
    "long number": ("a: 0x" + "f" * 9_000, "cannot be read as tag:yaml.org,2002:int"),
    "long time": ("a: " + "1:" * 900 + "1", "cannot be read as tag:yaml.org,2002:int"),
    "list for a key": ("? [a]\n: x\n", "a key must be one word"),
    "long key": ("? " + "x" * 9_000 + "\n: {a: 1}\n", "a key of 9,000 characters"),
    "merge": ("a: &a {b: 1}\nc: {<<: *a}\n", ""),
    "two documents": ("a: 1\n---\na: 2\n", "but found another document"),
    "no keys": ("- a\n- b\n", "keys and values"),
    "nothing": ("", "keys and values"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_job_file_that_could_take_over_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    text, word = HOSTILE[name]
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with within(10), pytest.raises(Problems) as caught:
        load_job(file)
    problem = next(problem for problem in caught.value.problems if word in str(problem))
    assert problem.file == str(file) and len(str(problem)) < 500


@pytest.mark.parametrize("name", HOSTILE)
def test_policy_that_could_take_over_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    text, word = HOSTILE[name]
    if name != "two documents":  # the second line of --- ends the front matter
        (tmp_path / "policy.md").write_text(f"---\n{text.rstrip()}\n---\nNothing rude.\n")
        with within(10), pytest.raises(Problems) as caught:
            load_policy(tmp_path)
        assert any(word in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize("name", HOSTILE)
def test_rules_that_could_take_over_are_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    text, word = HOSTILE[name]
    (tmp_path / "rules.yaml").write_text(text)
    with within(10), pytest.raises(Problems) as caught:
        load_rules(POLICY, tmp_path)
    assert any(word in str(problem) for problem in caught.value.problems)


def test_problem_in_front_matter_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_text(f"---\n{FRONT}version: [[\n---\nNothing rude.\n")
    with pytest.raises(Problems) as caught:
        load_policy(tmp_path)
    assert caught.value.problems[0].line in (4, 5)
    (tmp_path / "policy.md").write_text(f"---\n{FRONT}title: a\ntitle: b\n---\nNothing rude.\n")
    with pytest.raises(Problems) as caught:
        load_policy(tmp_path)
    assert [problem.line for problem in caught.value.problems] == [5]


def test_text_in_front_matter_is_no_policy_text(tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_text(f"---\n{FRONT}text: all is well\n---\nNothing rude.\n")
    with pytest.raises(Problems, match="unknown key 'text'"):
        load_policy(tmp_path)


def test_anchors_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "name: &name tweets\n"
        "input: {path: in, content: text}\n"
        "output: {path: out, columns: &columns [id, lang]}\n"
        "policies: [spam]\n"
        "cascade: [&reason {reason: {budget: 512}}]\n"
        "model: {effort: low, engine: {a: *name, b: *columns, c: *reason}}\n"
    )
    job = draft_job(tmp_path / "job.yaml").job
    assert job is not None
    assert job.model.engine == {
        "a": "tweets",
        "b": ["id", "lang"],
        "c": {"reason": {"budget": 512}},
    }


def test_numbers_up_to_the_bound_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"name: x\nnumber: {'9' * LONGEST_NUMBER}\n")
    with pytest.raises(Problems) as caught:
        load_job(tmp_path / "job.yaml")
    assert "cannot be read" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("[" * 5_000, "nested deeper"),
        (LAUGHS, "each alias counted"),
        ("&a [*a]", "inside the anchor"),
        ("!!python/object:a.b {}", "is not read"),
        ("{a: 1, a: 2}", "'a' stands twice"),
    ],
)
def test_value_of_set_that_could_take_over_is_a_problem_of_set(
    value: str, word: str, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text("name: x\ninput: {path: in, content: text}\n")
    with within(10):
        draft = draft_job(tmp_path / "job.yaml", [f"input.where={value}"])
    assert any(problem.file == "--set" and word in str(problem) for problem in draft.problems)


def test_key_of_set_that_is_too_deep_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: x\n")
    with pytest.raises(Problems, match=r"a key of 5,001 parts"):
        load_job(tmp_path / "job.yaml", [".".join("a" * 5_001) + "=1"])


def test_file_without_an_end_is_read_as_far_as_the_bound(tmp_path: Path) -> None:
    for path in ("job.yaml", "policy.md"):
        (tmp_path / path).symlink_to("/dev/zero")
    with within(10), pytest.raises(Problems, match="longer than"):
        load_job(tmp_path / "job.yaml")
    with within(10), pytest.raises(Problems, match="longer than"):
        load_policy(tmp_path)


GOLDEN = {
    "deep": '{"content": ' + "[" * 100_000,
    "deep keys": '{"content": ' + '{"a": ' * 100_000,
    "twice": '{"content": "a", "content": "b", "label": "SP0"}',
    "half a pair": '{"content": "\\ud800", "label": "SP0"}',
    "long number": '{"content": ' + "9" * 5_000 + ', "label": "SP0"}',
    "not a number": '{"content": NaN, "label": "SP0"}',
    "no object": "[]",
    "nothing": "",
    "another key": '{"content": "a", "label": "SP0", "note": 1}',
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_case_that_is_none_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_bytes((ROOT / "policies/spam/policy.md").read_bytes())
    good = '{"content": "a\u2028b", "label": "SP0"}\n'
    (tmp_path / "golden.jsonl").write_text(f"{good}{GOLDEN[name]}\n{good}", encoding="utf-8")
    with within(10), pytest.raises(Problems) as caught:
        load_golden(tmp_path)
    assert [problem.line for problem in caught.value.problems] == [2]


def test_golden_set_that_is_missing_or_too_large_says_so(tmp_path: Path) -> None:
    (tmp_path / "policy.md").write_bytes((ROOT / "policies/spam/policy.md").read_bytes())
    with pytest.raises(Problems, match=r"no golden\.jsonl"):
        load_golden(tmp_path)
    with (tmp_path / "golden.jsonl").open("wb") as file:
        file.truncate(LONGEST_GOLDEN + 1)
    with within(10), pytest.raises(Problems, match="longer than"):
        load_golden(tmp_path)
    (tmp_path / "golden.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(Problems, match="cannot be read"):
        load_golden(tmp_path)


def test_policy_from_outside_gets_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERAY_TEST_SECRET", "hunter2")
    front = FRONT + "title: ${MODERAY_TEST_SECRET}\n"
    (tmp_path / "policy.md").write_text(f"---\n{front}---\nSay ${{MODERAY_TEST_SECRET}}.\n")
    (tmp_path / "rules.yaml").write_text(
        "rules:\n"
        "  - {id: '${MODERAY_TEST_SECRET}', label: A, any_of: ['${MODERAY_TEST_SECRET}']}\n"
        "  - {id: b, label: A, where: \"lang = '${MODERAY_TEST_SECRET}'\"}\n"
    )
    (tmp_path / "golden.jsonl").write_text('{"content": "${MODERAY_TEST_SECRET}", "label": "A"}\n')
    policy = load_policy(tmp_path)
    read = [repr(policy), repr(load_golden(tmp_path)), repr(load_rules(policy, tmp_path))]
    assert "hunter2" not in "".join(read)
    assert policy.text == "Say ${MODERAY_TEST_SECRET}."


@pytest.mark.parametrize(
    "name", ["../secret.txt", "{folder}/secret.txt", "link.txt", "a/../../secret.txt"]
)
def test_rules_read_no_literals_from_outside_their_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("hunter2\n")
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "link.txt").symlink_to("../secret.txt")
    name = name.format(folder=tmp_path)
    (folder / "rules.yaml").write_text(f"rules: [{{id: a, label: SP4, any_of: '{name}'}}]")
    with pytest.raises(Problems, match="lies outside this policy folder") as caught:
        load_rules(POLICY, folder)
    assert "hunter2" not in str(caught.value)


def test_literals_that_a_link_names_within_the_folder_are_read(tmp_path: Path) -> None:
    # As Kubernetes lays out what it mounts.
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/words.txt").write_text("hunter2\n")
    (tmp_path / "words.txt").symlink_to("..data/words.txt")
    (tmp_path / "rules.yaml").write_text("rules: [{id: a, label: SP4, any_of: words.txt}]")
    rules = load_rules(POLICY, tmp_path)
    assert rules is not None and rules.rules[0].literals is not None
    assert rules.rules[0].literals.texts == ("hunter2",)


def test_links_in_a_circle_and_pipes_of_names_are_problems(tmp_path: Path) -> None:
    (tmp_path / "circle.txt").symlink_to("circle.txt")
    for name in ("circle.txt", "x" * 300):
        (tmp_path / "rules.yaml").write_text(f"rules: [{{id: a, label: SP4, any_of: {name}}}]")
        with pytest.raises(Problems, match="any_of"):
            load_rules(POLICY, tmp_path)
    assert os.listdir(tmp_path)


@pytest.mark.parametrize("name", HOSTILE)
def test_cluster_file_that_could_take_over_is_refused_or_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(HOSTILE[name][0])
    with within(10), pytest.raises(UserError) as caught:
        load_cluster(tmp_path / "cluster.yaml")
    assert len(str(caught.value)) < 500 + len(str(tmp_path)) and "\n" not in str(caught.value)


def test_yaml_is_loaded_in_one_file_alone() -> None:
    package = ROOT / "pipelines/moderay"
    ways = ("yaml.safe_load", "yaml.load", "yaml.compose", "yaml.full_load", "SafeLoader")
    users = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if any(re.search(rf"\b{way}", file.read_text(encoding="utf-8")) for way in ways)
    }
    # The package's own profiles of GPUs are no one else's.
    assert users == {"config/bounded_yaml.py", "engines/vllm/gpu_profiles.py"}
