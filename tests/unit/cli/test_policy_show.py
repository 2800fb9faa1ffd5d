"""`policy show`: a policy by section, label and golden case."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.policies import cases, write_golden
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.engines.harmony.prompt import instructions
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.tasks.policy.show import ANSWER_FORMAT, outline

Cli = Callable[..., subprocess.CompletedProcess[str]]
SPAM = ROOT / "policies/spam"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "spam"
    folder.mkdir()
    shutil.copy(SPAM / "policy.md", folder)
    return folder


def parts(folder: Path) -> list[str]:
    return [part.title for part in outline(folder).parts]


def rendered(folder: Path) -> list[str]:
    """Headings and first lines as the model reads them."""
    text = instructions(load_policy(folder))
    return [line.strip("# ") for line in text.splitlines() if line.startswith("#")]


def test_tokens_of_the_sections_add_up_to_the_text(policy: Path) -> None:
    seen = outline(policy)
    vocab = vocabulary()
    sections = [part for part in seen.parts if part.share is not None]
    assert sum(part.tokens for part in sections) == seen.tokens
    assert seen.tokens == len(vocab.encode(load_policy(policy).text))
    assert sum(part.share or 0 for part in sections) == pytest.approx(1)
    text = (policy / "policy.md").read_text().split("\n")
    assert [text[(part.line or 0) - 1].strip("# ") for part in sections] == [
        part.title for part in sections
    ]


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\n## INSTRUCTIONS\nx\n\n## EXAMPLES\ny",
        "# Title\n\n## INSTRUCTIONS\nx\n\n## SAFE\ny",
        "## INSTRUCTIONS\nx\n\n### Some examples\ny",
        "## SAFE\nx",
    ],
)
def test_answer_format_stands_where_the_prompt_has_it(text: str, policy: Path) -> None:
    (policy / "policy.md").write_text(f"---\nid: spam\n---\n{text}\n")
    assert parts(policy) == rendered(policy)
    assert parts(policy).count(ANSWER_FORMAT) == 2


def test_text_below_the_title_follows_the_answer_format(policy: Path) -> None:
    (policy / "policy.md").write_text("---\nid: spam\n---\n# Title\nAbout it.\n\n## EXAMPLES\nx")
    assert parts(policy) == ["Title", ANSWER_FORMAT, "(no heading)", ANSWER_FORMAT, "EXAMPLES"]
    (policy / "policy.md").write_text("---\nid: spam\n---\nJust a text.\n")
    assert parts(policy) == [ANSWER_FORMAT, "(no heading)", ANSWER_FORMAT]


def test_golden_cases_are_counted_by_label_boundary_and_language(policy: Path) -> None:
    assert not outline(policy).golden
    golden: list[dict[str, Any]] = cases(10)
    golden[0] |= {"boundary": True, "language": "de"}
    golden[3] |= {"boundary": True}
    write_golden(policy, golden)
    seen = outline(policy)
    counts = [(label.label, label.cases, label.boundary) for label in seen.labels]
    assert counts == [("SP0", 4, 2), ("SP2", 3, 0), ("SP4", 3, 0)]
    assert seen.labels[0].languages == {"": 3, "de": 1}


@pytest.mark.parametrize("folder", ["spam", "private_data"])
def test_table_fits_a_terminal_of_80_columns(
    folder: str, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    result = cli("policy", "show", ROOT / "policies" / folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    golden(f"policy-show-{folder}", result.stdout)


def test_json_has_the_same(cli: Cli) -> None:
    read = json.loads(cli("policy", "show", SPAM, "--json").stdout)
    assert read["policy"] == "spam" and read["golden"] is True
    assert read == json.loads(json.dumps(outline(SPAM).as_json()))


def test_policy_or_golden_set_that_does_not_load_is_refused(policy: Path, cli: Cli) -> None:
    (policy / "golden.jsonl").write_text('{"content": "x", "label": "SP9"}\n')
    result = cli("policy", "show", policy)
    assert result.returncode == 2 and "golden.jsonl:1: unknown label" in result.stderr
    (policy / "policy.md").unlink()
    result = cli("policy", "show", policy)
    assert result.returncode == 2 and "no policy.md" in result.stderr
