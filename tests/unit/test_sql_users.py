"""Wherever people write SQL it passes the gate: while a job is checked nothing is opened."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.listeners import Listener, Pipe
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.errors import Problems
from moderay.judges.rules_file import load_rules
from moderay.pipeline.check import check
from moderay.tasks.filter.rule import rule_problems

SPAM = load_policy(ROOT / "policies/spam").rule
QUERIES = [
    "EXISTS (SELECT * FROM read_csv('{target}'))",
    "n IN (SELECT a FROM read_csv('{target}'))",
    "n > (SELECT MAX(a) FROM read_parquet('{target}'))",
]


SPAM = load_policy(ROOT / "policies/spam").rule


def where(sql: str, job: Callable[..., Path], folder: Path) -> str:
    """What `check` says of a job's `where`."""
    file = job(input={"path": "in", "content": "text", "where": sql})
    with pytest.raises(Problems) as caught:
        check(file)
    return str(caught.value)


def rule(sql: str, job: Callable[..., Path], folder: Path) -> str:
    """What is said of a policy's rules."""
    (folder / "rules.yaml").write_text(f'rules: [{{id: a, label: SP4, where: "{sql}"}}]')
    with pytest.raises(Problems) as caught:
        load_rules(load_policy(ROOT / "policies/spam"), folder)
    return str(caught.value)


def keep(sql: str, job: Callable[..., Path], folder: Path) -> str:
    """What is said of a filter's rule."""
    return "\n".join(f"{what}: {hint}" for what, hint in rule_problems(sql, [SPAM]))


@pytest.mark.parametrize("user", [where, rule, keep])
def test_checking_sends_no_request_and_opens_no_path(
    user: Callable[..., str],
    job: Callable[..., Path],
    tmp_path: Path,
    listener: Listener,
    pipe: Pipe,
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "in" / "a.parquet")
    for query in QUERIES:
        for target in (f"{listener.url}/a.csv", str(pipe.path)):
            assert "a query is not allowed" in user(query.format(target=target), job, tmp_path)
    assert listener.requests == [] and not pipe.opened


@pytest.mark.parametrize("user", [where, rule, keep])
@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("text = '\\\"' OR n > AVG(n)", "AVG looks at many rows"),
        ("n > now()", "NOW gives another answer each time"),
        (" OR ".join(["n > 1"] * 4_000), "characters, of which"),
        ("(" * 300 + "n > 1" + ")" * 300, "nested deeper"),
        ("n > 1 -- and so on", "a comment is not allowed"),
        ("TRUE", "look"),
    ],
    ids=["aggregate", "volatile", "long", "deep", "comment", "constant"],
)
def test_what_is_not_allowed_is_refused_wherever_it_stands(
    user: Callable[..., str], sql: str, word: str, job: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "in" / "a.parquet")
    if user is not rule:  # which stands in double quotes
        sql = sql.replace("\\", "")
    assert word in user(sql, job, tmp_path)
