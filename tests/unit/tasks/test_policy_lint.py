"""`policy lint`: every finding is provoked by a policy that has it, at its line; none by ours."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.outputs import plain
from support.patience import within
from support.policies import LABELS, cases, front_matter, write_golden
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.tasks.policy.finding import Code, Finding
from moderay.tasks.policy.label_names import coinciding
from moderay.tasks.policy.lint import lint_job, lint_policies
from moderay.tasks.policy.shape import LONGEST, SHORTEST

Cli = Callable[..., subprocess.CompletedProcess[str]]
SHIPPED = sorted(file.parent for file in (ROOT / "policies").glob("*/policy.md"))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The spam policy, with a golden set of 42 cases: clean."""
    folder = tmp_path / "spam"
    folder.mkdir()
    shutil.copy(ROOT / "policies/spam/policy.md", folder)
    write_golden(folder, cases())
    return folder


def edit(folder: Path, before: str, after: str) -> int:
    """Change the text once; the line where it was."""
    file = folder / "policy.md"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    return text[: text.index(before)].count("\n") + 1


def found(*folders: Path) -> list[tuple[str, int, Code]]:
    """File, line and code of each finding."""
    linted = lint_policies(folders)
    assert not linted.problems
    return [(Path(f.file).name, f.line, f.code) for f in linted.findings]


def only(folder: Path) -> Finding:
    [finding] = lint_policies([folder]).findings
    return finding


def test_policy_without_faults_is_clean(policy: Path, cli: Cli) -> None:
    assert found(policy) == []
    result = cli("policy", "lint", policy)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1 policy: clean\n", "")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: str(folder.name))
def test_shipped_policy_is_clean(folder: Path) -> None:
    assert [*map(str, lint_policies([folder]).findings)] == []


@pytest.mark.parametrize("name", ["INSTRUCTIONS", "DEFINITIONS", "VIOLATES", "SAFE", "EXAMPLES"])
def test_section_without_its_heading_is_missing(name: str, policy: Path) -> None:
    edit(policy, f"## {name}\n", f"**{name[0]}.**\n")
    findings = lint_policies([policy]).findings
    assert [(f.line, f.message) for f in findings if f.code is Code.SECTION_MISSING] == [
        (12, f"no section {name}")
    ]


def test_section_with_nothing_below_its_heading_is_empty(policy: Path) -> None:
    text = (policy / "policy.md").read_text()
    below = re.search(r"## DEFINITIONS\n(.*?)\n## ", text, re.DOTALL)
    assert below
    line = edit(policy, below[1], "") - 1
    assert ("policy.md", line, Code.SECTION_EMPTY) in found(policy)


def test_headings_may_say_more_than_the_name_of_a_section(policy: Path) -> None:
    edit(policy, "## VIOLATES", "### What VIOLATES (2, 4)")
    edit(policy, "## EXAMPLES", "# Some examples")
    assert found(policy) == []


@pytest.mark.parametrize(("words", "is_fine"), [(0, True), (-300, False), (300, False)])
def test_length_is_in_tokens_of_the_model(words: int, is_fine: bool, policy: Path) -> None:
    file = policy / "policy.md"
    if words < 0:
        text = file.read_text()
        file.write_text(re.sub(r"(## SAFE\n).*?\n\n", r"\1SP0.\n\n", text, flags=re.DOTALL))
        edit(policy, (re.search(r"Judge what.*?counts\.", text, re.DOTALL) or [""])[0], "")
    else:
        edit(policy, "## VIOLATES", "house " * words + "\n\n## VIOLATES")
    count = len(vocabulary().encode(load_policy(policy).text))
    assert (SHORTEST <= count <= LONGEST) == is_fine
    lengths = [f for f in lint_policies([policy]).findings if f.code is Code.LENGTH]
    assert [f.message.split()[3] for f in lengths] == [f"{count}"] * (not is_fine)


def test_label_that_only_the_front_matter_knows_is_undefined(policy: Path) -> None:
    line = edit(policy, "  SP4:", "  SP3: {violates: true}\n  SP4:")
    codes = [(line, code) for _, line, code in found(policy)]
    assert (line, Code.LABEL_UNDEFINED) in codes
    assert [code for _, code in codes if code is not Code.LABEL_UNDEFINED] == [
        Code.LABEL_UNEXAMPLED,
        Code.GOLDEN_NO_CASE,
    ]


def test_only_label_of_its_side_is_defined_by_the_section_of_that_side(policy: Path) -> None:
    edit(policy, "SP0, not spam:\n", "")
    assert found(policy) == []
    edit(policy, "  SP2:", "  SP1: {violates: false}\n  SP2:")
    undefined = [f.message for f in lint_policies([policy]).findings if "defined" in f.message]
    assert undefined == [f"label {name} is never defined" for name in ("SP0", "SP1")]


@pytest.mark.parametrize(
    "definition",
    [
        "SP3: bulk messages",
        "- **SP3** (bulk messages)",
        "### Bulk (SP3)",
        "❗ High-Risk Spam (SP3 – Strong Confidence)",
        "Label SP3 means bulk messages",
        "Choose SP3 when a message is sent in bulk.",
        "- SP3 - bulk messages",
    ],
)
def test_label_is_defined_in_any_of_the_usual_ways(definition: str, policy: Path) -> None:
    edit(policy, "  SP4:", "  SP3: {violates: true}\n  SP4:")
    assert Code.LABEL_UNDEFINED in {code for *_, code in found(policy)}
    edit(policy, "## SAFE", f"{definition}\n\n## SAFE")
    assert Code.LABEL_UNDEFINED not in {code for *_, code in found(policy)}


def test_label_is_named_before_it_is_defined(policy: Path) -> None:
    line = edit(policy, "## DEFINITIONS", "Be slow to see SP4.\n\n## DEFINITIONS")
    finding = only(policy)
    assert (finding.line, finding.code) == (line, Code.LABEL_EARLY)
    defined = int(finding.message.split()[-1])
    assert (policy / "policy.md").read_text().split("\n")[defined - 1].startswith("SP4, ")


def test_number_in_a_text_names_no_label(policy: Path) -> None:
    labels = {"0": LABELS["SP0"], "1": LABELS["SP2"]}
    (policy / "policy.md").write_text(
        front_matter(labels) + "# Spam\n## INSTRUCTIONS\nAnything sent 1 day or 0 days ago.\n"
        '## VIOLATES\nx\n## SAFE\ny\n## EXAMPLES\n- "a" is 1: z\n- "b" is 0: z\n'
    )
    write_golden(policy, [])
    codes = {f.code for f in lint_policies([policy]).findings}
    assert codes == {Code.SECTION_MISSING, Code.LENGTH, Code.GOLDEN_NONE}
    edit(policy, "Anything sent 1 day", "Answer 1 for things")
    assert {f.code for f in lint_policies([policy]).findings} == codes
    edit(policy, "Answer 1 for", "Never use label 1 on")
    assert {f.code for f in lint_policies([policy]).findings} == {*codes, Code.LABEL_EARLY}


@pytest.mark.parametrize(
    "form",
    [
        '- "{text}" is SP2: why',
        "1. “{text}” → **SP2**",
        "* '{text}' -> SP2",
        '| "{text}" | SP2 |',
        "Content: {text}\nLabel: SP2",
        'Input: "{text}"\nOutput: "SP2"',
        '- "{text}",\n  wrapped,\n  is said "here" is SP2: why',
    ],
)
def test_example_is_read_in_any_of_the_usual_forms(form: str, policy: Path) -> None:
    text = (policy / "policy.md").read_text()
    (policy / "policy.md").write_text(
        re.sub(r'- "Nice photo.*\n', form.replace("{text}", "Buy my boats today") + "\n\n", text)
    )
    assert found(policy) == []
    golden = cases()
    golden[3] = {"content": "Buy my boats, today!", "label": "SP4"}
    write_golden(policy, golden)
    if "wrapped" not in form:
        assert only(policy).code is Code.EXAMPLE_CONTRADICTS


def test_label_without_an_example_is_found(policy: Path) -> None:
    edit(policy, '- "Nice photo', "- Nice photo")
    finding = only(policy)
    heading = (policy / "policy.md").read_text().split("\n")[finding.line - 1]
    assert (finding.code, heading) == (Code.LABEL_UNEXAMPLED, "## EXAMPLES")
    assert finding.message == "no example has label SP2"


def test_labels_that_begin_alike_where_others_part_are_dear(policy: Path) -> None:
    vocab = vocabulary()
    names = {name: LABELS["SP0" if name == "S" else "SP2"] for name in ("S", "H", "H2", "V")}
    (policy / "policy.md").write_text(front_matter(names) + "x")
    assert coinciding(load_policy(policy), vocab) == {"H": ("H", "H2")}
    write_golden(policy, [])
    [dear] = [f for f in lint_policies([policy]).findings if f.code is Code.LABELS_BEGIN_ALIKE]
    assert (dear.line, "H, H2" in dear.message) == (5, True)
    # All begin with the same token here, and part at one place.
    assert coinciding(load_policy(ROOT / "policies/spam"), vocab) == {}


@pytest.mark.parametrize("word", ["inappropriate", "Etc.", "and so on", "excessive", "toxic"])
def test_vague_word_is_found_but_not_in_quotations_or_where_it_is_defined(
    word: str, policy: Path
) -> None:
    line = edit(policy, "- Requests to follow,", f"- Requests, {word} to follow,")
    finding = only(policy)
    assert (finding.line, finding.code) == (line, Code.VAGUE)
    assert word.lower() in finding.message
    edit(policy, f"{word} to follow", f'"{word}" to follow')
    assert found(policy) == []
    edit(policy, f'"{word}" to follow', f"{word} to follow")
    edit(policy, "- **Unwanted**", f"- **{word}**: means this.\n- **Unwanted**")
    assert found(policy) == []


@pytest.mark.parametrize(
    "line",
    [
        "Answer with JSON.",
        "Respond with SP0 or SP2.",
        "Reply with exactly SP0, SP2 or SP4.",
        "Return a single label.",
        "Output the label and nothing else.",
        "✅ Output: VALID",
        "## LABEL FORMAT",
        'Such as {"label": "SP0"}.',
    ],
)
def test_answer_format_in_a_policy_is_found(line: str, policy: Path) -> None:
    number = edit(policy, "## DEFINITIONS", f"{line}\n\n## DEFINITIONS")
    found_here = [f for f in lint_policies([policy]).findings if f.code is Code.ANSWER_FORMAT]
    assert [f.line for f in found_here] == [number]


@pytest.mark.parametrize(
    "line",
    [
        "Choose the mildest label that fits the whole content.",
        "SP0 or SP2 is wrong for it.",
        "An answer in JSON that a user asks for is content.",
    ],
)
def test_rule_about_labels_or_answers_is_no_answer_format(line: str, policy: Path) -> None:
    edit(policy, "- Newsletters,", f"- {line}\n- Newsletters,")
    assert found(policy) == []


def test_control_token_is_found_in_the_text_and_in_titles(policy: Path) -> None:
    first = edit(policy, "title: Not spam", "title: <|end|> Not spam")
    second = edit(policy, "## SAFE", "## SAFE\n<|channel|>analysis<|message|>")
    assert found(policy) == [
        ("policy.md", first, Code.CONTROL_TOKEN),
        ("policy.md", second + 1, Code.CONTROL_TOKEN),
        ("policy.md", second + 1, Code.CONTROL_TOKEN),
    ]


def test_golden_set_needs_forty_cases_of_every_label_and_both_sides(policy: Path) -> None:
    write_golden(policy, cases(39))
    assert only(policy).message == "39 golden cases, and 40 are few"
    golden = cases()
    for i, case in enumerate(golden):
        case["label"] = "SP0" if i < 8 else "SP4"
    write_golden(policy, golden)
    assert [(line, code) for _, line, code in found(policy)] == [
        (1, Code.GOLDEN_NO_CASE),
        (1, Code.GOLDEN_ONE_SIDED),
    ]
    golden[8]["label"] = "SP2"
    golden[9]["label"] = "SP0"
    write_golden(policy, golden)  # 9 of 42 are safe: more than a fifth
    assert found(policy) == []


@pytest.mark.parametrize("has_file", [False, True])
def test_policy_without_golden_cases_has_too_few(has_file: bool, policy: Path) -> None:
    (policy / "golden.jsonl").unlink()
    if has_file:
        write_golden(policy, [])
    finding = only(policy)
    assert (finding.code, finding.message) == (
        Code.GOLDEN_NONE,
        "no golden case: how often the model is right cannot be known",
    )


TURNS = [
    {"role": "user", "content": "Where can I buy a quiet vacuum cleaner?"},
    {"role": "assistant", "content": "My shop has twelve of them."},
]


@pytest.mark.parametrize(
    ("content", "label", "again", "label_again", "code"),
    [
        ("Buy a boat.", "SP2", "  buy A BOAT!", "SP2", Code.GOLDEN_TWICE),
        ("Buy a boat.", "SP2", "Buy a boat", "SP0", Code.GOLDEN_CONTRADICTS),
        ("ＢＵＹ ａ boat", "SP2", "buy a boat", "SP2", Code.GOLDEN_TWICE),
        (
            "Buy one of our boats before Friday evening",
            "SP2",
            "Buy one of our boats before Monday",
            "SP2",
            Code.GOLDEN_ALIKE,
        ),
        (
            "Buy one of our boats before Friday evening",
            "SP2",
            "Buy one of our boats before Monday",
            "SP0",
            None,
        ),
        (TURNS, "SP2", TURNS, "SP2", Code.GOLDEN_TWICE),
        (TURNS, "SP2", [TURNS[0], {**TURNS[1], "content": "Sorry?"}], "SP0", None),
        ("❤❤❤", "SP0", "💰💰", "SP0", None),
        ("免费领取手机壳", "SP4", "免费领取手机壳!", "SP4", Code.GOLDEN_TWICE),
    ],
)
def test_cases_that_are_alike_are_found_unless_they_are_a_pair(
    content: object, label: str, again: object, label_again: str, code: Code | None, policy: Path
) -> None:
    golden = cases()
    golden[10] = {"content": content, "label": label}
    golden[30] = {"content": again, "label": label_again, "language": "en"}
    write_golden(policy, golden)
    assert found(policy) == ([] if code is None else [("golden.jsonl", 31, code)])


def test_example_gives_a_case_away_or_contradicts_it(policy: Path) -> None:
    golden = cases()
    bait = "Congratulations, your number won a gift card, claim it at this link"
    golden[6] = {"content": bait, "label": "SP4"}
    write_golden(policy, golden)
    finding = only(policy)
    assert (Path(finding.file).name, finding.line) == ("golden.jsonl", 7)
    assert finding.code is Code.EXAMPLE_GIVES_AWAY
    golden[6] = {"content": bait, "label": "SP0"}
    write_golden(policy, golden)
    finding = only(policy)
    line = (policy / "policy.md").read_text().split("\n")[finding.line - 1]
    assert finding.code is Code.EXAMPLE_CONTRADICTS and "your number won a gift card" in line
    # Far enough from the example, it is a near miss of it.
    golden[6] = {"content": bait.replace("claim it at this link", "said the scam"), "label": "SP0"}
    write_golden(policy, golden)
    assert found(policy) == []


@pytest.fixture
def job(policy: Path) -> Path:
    """A job of the policy and of a second one that says the same in other places."""
    other = policy.parent / "ads"
    shutil.copytree(policy, other)
    edit(other, "id: spam", "id: ads")
    write_golden(other, [{**case, "content": f"{case['content']} " * 3} for case in cases()])
    file = policy.parent / "job.yaml"
    file.write_text(
        "name: x\ninput: {path: in, content: text}\noutput: {path: out}\n"
        "policies: [spam, ads]\nmodel: {source: openai/gpt-oss-safeguard-20b}\n"
    )
    return file


def test_policies_of_a_job_that_overlap_are_found(job: Path) -> None:
    linted = lint_job(job)
    assert linted.problems == () and linted.policies == 2
    [finding] = linted.findings
    assert (finding.code, Path(finding.file).parent.name) == (Code.POLICIES_OVERLAP, "ads")
    assert "are also in spam" in finding.message
    # Ours say different things.
    shipped = lint_job(ROOT / "jobs/demo.yaml").findings
    assert not [f for f in shipped if f.code.startswith("POL5")]


def test_case_of_two_policies_with_other_meaning_is_found(job: Path) -> None:
    golden = cases()
    golden[0]["label"] = "SP2"  # SP0 under the other
    golden[1]["label"] = "SP4"  # SP2 under the other: violates both
    write_golden(job.parent / "ads", golden)
    findings = [f for f in lint_job(job).findings if f.code is Code.POLICIES_DISAGREE]
    assert [(Path(f.file).parent.name, f.line) for f in findings] == [("ads", 1)]


def test_what_does_not_load_is_told_beside_what_was_found(
    job: Path, cli: Cli, tmp_path: Path
) -> None:
    edit(job.parent / "ads", "threshold: 0.5", "threshold: 5")
    edit(job.parent / "spam", "- Requests to", "- Inappropriate requests to")
    result = cli("policy", "lint", "--job", job)
    assert result.returncode == 2
    assert "POL301" in result.stdout and "1 finding in 2 policies" in result.stdout
    assert result.stderr.count("threshold") == 1 and "ads/policy.md:10" in result.stderr
    (job.parent / "spam/golden.jsonl").write_text('{"content": "x", "label": "SP9"}\n')
    result = cli("policy", "lint", job.parent / "spam", job.parent / "ads", tmp_path / "none")
    assert result.returncode == 2 and "POL301" in result.stdout
    for told in ("golden.jsonl:1: unknown label 'SP9'", "threshold", "no policy.md"):
        assert result.stderr.count(told) == 1, told
    assert "3 problems: not all of it could be looked at" in result.stderr


def test_job_says_once_that_a_policy_is_not_there(job: Path, cli: Cli) -> None:
    shutil.rmtree(job.parent / "ads")
    result = cli("policy", "lint", "--job", job)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("ads") == 1 and "job.yaml:4" in result.stderr


def test_arguments_that_do_not_go_together_are_refused(policy: Path, cli: Cli) -> None:
    for arguments in ([], [policy, "--job", "job.yaml"], [policy, "--set", "name=x"]):
        result = cli("policy", "lint", *arguments)
        assert (result.returncode, result.stdout) == (2, ""), arguments
        assert "--job" in result.stderr


def test_json_has_all_that_was_found(policy: Path, cli: Cli) -> None:
    line = edit(policy, "- Requests to", "- Inappropriate requests to")
    result = cli("policy", "lint", policy, "--json")
    assert result.returncode == 1
    read = json.loads(result.stdout)
    assert read["problems"] == []
    [finding] = read["findings"]
    assert (finding["line"], finding["code"]) == (line, "POL301")
    assert finding.keys() == {"file", "line", "code", "message", "hint"}


WRONG = """\
---
id: wrong
labels:
  S: {violates: false, title: Fine <|end|>}
  H: {violates: true}
  H2: {violates: true}
  V: {violates: true}
---
# Wrong

## INSTRUCTIONS
Decide whether it is inappropriate. H2 is the worst. Answer with JSON.

## DEFINITIONS

## VIOLATES
H, spoken: insults etc.
H2, written: insults of the same kind. [fill in: others]

## EXAMPLES
- "you are a fool and everybody knows it" is H: an insult.
- "the weather is a fool today, is it not" is H2: an insult.
"""
WRONG_GOLDEN = [
    ("you are a fool and everybody knows it!", "H"),
    ("The weather is a fool today, is it not?", "S"),
    ("what a lovely day to go out and sail", "H"),
    ("What a lovely day to go out and sail!", "H"),
    ("What a lovely day to go out and sail far", "H"),
    ("nobody has ever heard of him", "H2"),
    ("Nobody has ever heard of him.", "S"),
    *[(str(case["content"]), "H") for case in cases(5)],
]


def test_policy_of_every_fault_tells_all_at_once(
    tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "policy.md").write_text(WRONG)
    write_golden(folder, [{"content": text, "label": label} for text, label in WRONG_GOLDEN])
    other = tmp_path / "other"
    other.mkdir()
    (other / "policy.md").write_text(WRONG.replace("id: wrong", "id: other"))
    write_golden(other, [{"content": WRONG_GOLDEN[2][0], "label": "S"}])
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: x\ninput: {path: in, content: text}\noutput: {path: out}\n"
        "policies: [wrong, other]\nmodel: {source: tiny}\n"
    )
    result = cli("policy", "lint", "--job", job)
    assert (result.returncode, result.stderr) == (1, "")
    # A golden set cannot be empty and wrong.
    assert set(re.findall(r"POL\d+", result.stdout)) == {*Code} - {Code.GOLDEN_NONE}
    golden("policy-lint", plain(result.stdout, tmp_path))


def test_every_code_is_documented() -> None:
    table = re.findall(r"^\| `(POL\d+)` \|", (ROOT / "docs/policies.md").read_text(), re.M)
    assert table == [*Code]


@pytest.mark.parametrize(
    "hostile",
    [
        "*" * 20_000,
        '"' * 20_000,
        "“a” is " * 3000,
        "content:" + "\n" * 20_000,
        "(" * 20_000,
        "answer " * 5000,
        "or similar " * 5000,
        "- " * 10_000,
    ],
    ids=lambda text: text[:8].strip(),
)
def test_text_of_anybody_is_looked_at_in_moments(hostile: str, policy: Path) -> None:
    edit(policy, "## EXAMPLES", f"{hostile}\n\n## EXAMPLES\n{hostile}")
    with within(10):
        assert lint_policies([policy]).findings
