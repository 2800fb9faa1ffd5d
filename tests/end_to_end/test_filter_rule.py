"""What a filter's rule may be over: verdicts, and the columns of the input beside them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.corpora import get, put
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.tasks.filter.rule import rule_problems

Cli = Callable[..., subprocess.CompletedProcess[str]]
SPAM = load_policy(ROOT / "policies/spam").rule
LABELS = ", ".join(sorted(SPAM.labels))


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("spam.label = 'FR9'", f"spam has no label 'FR9': valid: {LABELS}"),
        ("'SP12' <> spam.label", "spam has no label 'SP12': did you mean 'SP2'?"),
        ("NOT (spam.label IN ('SP2', 'XX'))", f"spam has no label 'XX': valid: {LABELS}"),
        ("spam.violates AND (spam.label) = ('fr')", f"spam has no label 'fr': valid: {LABELS}"),
        ("CASE WHEN spam.label = 'XX' THEN TRUE ELSE FALSE END", "spam has no label 'XX'"),
        ("CASE spam.label WHEN 'XX' THEN TRUE ELSE FALSE END", "spam has no label 'XX'"),
        ("spam.label IS DISTINCT FROM 'XX'", "spam has no label 'XX'"),
        ("spam.status = 'okay'", "spam has no status 'okay': did you mean 'ok'?"),
        ("hate.label = 'SP2'", "no policy, verdict or carried column 'hate': valid: "),
        ("row.label = 'SP2'", "row has no field 'label'"),
        ("spam.run = 1", "spam has no field 'run': it is spam.trace.run"),
        ("spam.trace.runs = 1", "spam.trace has no field 'runs': did you mean 'run'?"),
        ("spam.scores.SP9 > 0.1", "spam.scores has no field 'SP9': did you mean 'SP4'?"),
    ],
)
def test_label_that_no_verdict_can_have_is_refused(rule: str, problem: str) -> None:
    [(what, hint)] = rule_problems(rule, [SPAM])
    assert f"{what}: {hint}".startswith(problem)


@pytest.mark.parametrize(
    "rule",
    [
        "spam.label = 'SP2'",
        "spam.label IN ('SP2', 'SP0') OR spam.status = 'ok'",
        "spam.label LIKE 'XX%'",
        "spam.rationale = 'XX'",
        "content_hash = 'XX'",
        "spam.scores.SP4 < 0.3 OR spam.trace.decided_by = 'rules'",
    ],
)
def test_rule_over_labels_that_there_are_is_taken(rule: str) -> None:
    assert not list(rule_problems(rule, [SPAM]))


ROWS: list[dict[str, Any]] = [
    {
        "id": i,
        "text": ["hello", "claim your prize", ""][i % 3],
        "part": {"lang": ["de", "en"][i % 2]},
    }
    for i in range(12)
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_rule_may_look_at_columns_of_the_input(
    job: Callable[..., Path], cli: Cli, tmp_path: Path, name: str
) -> None:
    lang = "part.lang" if name == "a.jsonl" else "part"
    lines: list[bytes] = []
    if name == "a.jsonl":
        put(tmp_path, name, ROWS)
        lines = get(tmp_path / "in" / name).splitlines(keepends=True)
    else:
        lines = [f"{row['id']},{row['text']},{row['part']['lang']}\n".encode() for row in ROWS]
        put(tmp_path, name, b"id,text,part\n" + b"".join(lines))
    head = b"" if name == "a.jsonl" else b"id,text,part\n"
    keep = f"NOT spam.violates OR ({lang} = 'en' AND CAST(id AS INT) > 3)"
    result = cli("filter", job(filter={"keep": keep, "out": "clean"}))
    assert result.returncode == 0, result.stderr
    kept = [i for i in range(12) if i % 3 == 0 or (i % 2 == 1 and i > 3)]
    assert get(tmp_path / "clean/kept" / name) == head + b"".join(lines[i] for i in kept)
    # Of the labels alone, and of one column only.
    finished = ("filter", "--labels", tmp_path / "out", "--out", tmp_path / "other", "--keep")
    result = cli(*finished, f"{lang} = 'de'")
    assert result.returncode == 0, result.stderr
    assert get(tmp_path / "other/kept" / name) == head + b"".join(lines[::2])
    result = cli(*finished, f"{lang} > 1.5", "--replace")
    assert result.returncode == 2 and "cannot compare string with numeric type" in result.stderr


def test_column_that_is_not_carried_is_named_before_anything_is_judged(
    job: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    put(tmp_path, "a.jsonl", ROWS)
    file = job(output={"path": "out", "columns": ["text"]})
    command = ("filter", file, "--out", tmp_path / "clean", "--keep", "id > 3")
    result = cli(*command)
    assert result.returncode == 2 and not (tmp_path / "out").exists()
    assert "keep: no policy, verdict or carried column 'id'" in result.stderr
    assert cli("run", file).returncode == 0
    finished = ("filter", "--labels", tmp_path / "out", "--out", tmp_path / "clean")
    assert "carried column 'id'" in cli(*finished, "--keep", "id > 3").stderr
