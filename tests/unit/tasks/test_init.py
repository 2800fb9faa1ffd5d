"""`moderay init`, `moderay policy new`: what they write is accepted, nothing is overwritten."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import put
from support.outputs import plain
from support.project import ROOT

from moderay.config.policy import load_golden, load_policy
from moderay.core.errors import Problems, UserError
from moderay.pipeline.check import check
from moderay.tasks.init.policy import new_policy
from moderay.tasks.init.project import init_project

Cli = Callable[..., subprocess.CompletedProcess[str]]
ROWS = [{"text": f"a tweet {i}", "n": i, "lang": ("en", "de")[i % 2]} for i in range(20)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parquet(name: str, columns: dict[str, Any]) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), name)
    return name


def talk(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    "name",
    ["in/a.parquet", "in/a.jsonl", "in/a.jsonl.gz", "in/a.csv", "in/a.tsv.zst", "in", "in/*"],
)
def test_job_over_ones_own_file_is_accepted_at_once(name: str, tmp_path: Path) -> None:
    if name.endswith(".jsonl.gz"):
        put(tmp_path, "a.jsonl.gz", ROWS)
    elif name.endswith(".jsonl"):
        put(tmp_path, "a.jsonl", ROWS)
    elif name.endswith((".csv", ".tsv.zst")):
        tab = "\t" if "tsv" in name else ";"
        lines = [tab.join(ROWS[0]), *(tab.join(map(str, row.values())) for row in ROWS)]
        put(tmp_path, name.removeprefix("in/"), "\n".join(lines).encode())
    else:
        parquet("in/a.parquet", {key: [row[key] for row in ROWS] for key in ROWS[0]})
    made = init_project(Path("first"), name, "text")
    checked = check(made.job)
    assert checked.scan.rows == 20 and checked.job.input.content == "text"
    assert [policy.id for policy in checked.policies] == ["harassment"]
    assert load_golden("first/policies/harassment")
    assert sorted(map(str, made.files)) == sorted(
        str(file) for file in Path("first").rglob("*") if file.is_file()
    )


def test_lines_that_are_commented_out_hold_once_they_are_not() -> None:
    columns = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    job = init_project(Path("first"), parquet("a.parquet", columns), "text").job
    text = job.read_text().replace("# where: ", "where: ").replace("# sample: ", "sample: ")
    job.write_text(text)
    checked = check(job)
    assert (checked.job.input.where, checked.job.input.sample) == ("lang = 'en'", 0.5)


def test_large_input_is_sampled() -> None:
    data = parquet("a.parquet", {"text": [f"row {i}" for i in range(5000)]})
    job = init_project(Path("first"), data, None).job
    assert check(job).job.input.sample == 0.1
    assert "  # about 500 of 5,000 rows; without it, all" in job.read_text()


def test_only_column_that_can_be_judged_is_taken() -> None:
    columns = {"n": [1, 2], "messages": [talk("hello"), talk("bye")], "title": ["a", "b"]}
    assert init_project(Path("one"), parquet("a.parquet", columns), None).look.content == "messages"
    columns.pop("messages")
    assert init_project(Path("two"), parquet("b.parquet", columns), None).look.content == "title"


def test_only_file_of_the_folder_is_taken_and_an_example_where_there_is_none(cli: Cli) -> None:
    put(Path("full"), "../tweets.jsonl", ROWS)
    result = cli("init", "full", "--content", "text")
    assert result.returncode == 0 and "path: tweets.jsonl\n" in Path("full/job.yaml").read_text()
    result = cli("init", "new/empty")
    assert result.returncode == 0 and "the rows are made up" in result.stderr
    assert check(Path("new/empty/job.yaml")).scan.rows == 8


def test_columns_that_labels_cannot_carry_are_left_out_and_named(cli: Cli) -> None:
    columns = {"row": [1], "harassment": [True], "text": ["a"], "a, b": ["x"]}
    result = cli("init", "--data", parquet("a.parquet", columns), "--content", "text")
    assert result.returncode == 0
    assert "not carried over to the labels: row, harassment" in result.stderr
    assert check(Path("job.yaml")).job.output.columns == ["text", "a, b"]


@pytest.mark.parametrize(
    "name",
    [
        "it's.parquet",
        "a[1].parquet",
        "a b.parquet",
        "a: b #c.parquet",
        "null.parquet",
        "ä\u2028.parquet",
    ],
)
def test_name_of_a_file_is_only_a_name(name: str) -> None:
    Path("in").mkdir()
    data = parquet(f"in/{name}", {"yes": ["x' OR 1"] * 9, "te: xt": [f"{i}" for i in range(9)]})
    assert check(init_project(Path('we"ird ${X} #'), data, "te: xt").job).scan.rows == 9


def test_refusals_say_what_to_do_and_leave_nothing(
    cli: Cli, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    columns = {key: [row[key] for row in ROWS] for key in ROWS[0]}
    several = parquet("tweets.parquet", {**columns, "escape": ["\x1b[31m red " * 9] * 20})
    parquet("two/a.parquet", columns)
    parquet("two/b.parquet", columns)
    Path("notes.md").write_text("no table")
    messages = []
    for arguments in (
        ["new", "--data", several],
        ["new", "--data", several, "--content", "txt"],
        ["new", "--data", parquet("numbers.parquet", {"n": [1]})],
        ["two"],
        ["notes.md", "--data", several, "--content", "text"],
        ["two", "--data", "two", "--content", "text"],
    ):
        result = cli("init", *arguments)
        assert (result.returncode, result.stdout) == (2, ""), arguments
        messages.append(result.stderr)
    golden("init-refused", plain("".join(messages), tmp_path))
    # Which formats there are is told elsewhere.
    for name in ("notes.md", "none.parquet"):
        result = cli("init", "new", "--data", name, "--content", "text")
        assert (result.returncode, result.stdout) == (2, "") and name in result.stderr
        assert ".jsonl.gz" in result.stderr or "a glob such as" in result.stderr
    assert not Path("new").exists()
    assert sorted(file.name for file in Path("two").iterdir()) == ["a.parquet", "b.parquet"]


def test_no_file_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    data = parquet("a.parquet", {"text": ["x"]})
    Path("policies/harassment").mkdir(parents=True)
    Path("policies/harassment/policy.md").write_text("mine")
    Path(".gitignore").symlink_to("nowhere")
    result = cli("init", "--data", data)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "policies/harassment/policy.md: is there already",
        "    hint: move it away, or name another folder",
        ".gitignore: is there already",
        "    hint: move it away, or name another folder",
        "2 problems; nothing was written",
    ]
    assert Path("policies/harassment/policy.md").read_text() == "mine"
    assert not Path("job.yaml").exists() and not Path("policies/harassment/golden.jsonl").exists()


def test_one_more_policy_loads_and_explains_each_key(cli: Cli) -> None:
    data = parquet("a.parquet", {"text": ["x"]})
    init_project(Path("first"), data, None)
    result = cli("policy", "new", "hate_speech", "--folder", "first/policies")
    assert result.stdout.splitlines()[-2:] == [
        "fill in what stands in brackets: moderay policy lint lists it; in first/job.yaml, under "
        "policies:",
        "  - policies/hate_speech",
    ]
    lint = cli("policy", "lint", "first/policies/hate_speech")
    to_do = Path("first/policies/hate_speech/policy.md").read_text().count("[fill in: ")
    assert lint.returncode == 0 and "POL1" not in lint.stdout
    assert lint.stdout.splitlines()[-1] == f"1 policy: clean, {to_do + 1} things to do"
    job = Path("first/job.yaml")
    job.write_text(job.read_text().replace("policies:\n", "policies:\n  - policies/hate_speech\n"))
    assert [policy.id for policy in check(job).policies] == ["hate_speech", "harassment"]
    assert load_golden("first/policies/hate_speech") == []
    for policy in ("hate_speech", "harassment"):
        front = Path(f"first/policies/{policy}/policy.md").read_text().split("---\n")[1]
        keys = re.findall(r"^(\w+):", front, re.M)
        assert keys == ["id", "title", "version", "labels", "answer", "threshold"]
        assert re.findall(r"^#.*\n(\w+):", front, re.M) == keys
        # What explains is not what the model reads.
        assert "moderay" not in load_policy(f"first/policies/{policy}").text


@pytest.mark.parametrize("policy", ["Hate", "hate-speech", "../up", "", "row", "flagged", "a\n"])
def test_id_that_is_none_is_refused(policy: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no id of a policy"):
        new_policy(policy, Path("policies"))
    assert list(tmp_path.iterdir()) == []


def test_second_policy_of_a_name_is_refused() -> None:
    new_policy("hate", Path("policies"))
    with pytest.raises(Problems, match=r"policies/hate/policy\.md: is there already"):
        new_policy("hate", Path("policies"))


def test_example_is_the_policy_that_tiny_was_trained_on() -> None:
    init_project(Path(), None, None)
    example, own = load_policy("policies/harassment"), load_policy(ROOT / "policies/harassment")
    assert (example.text, example.labels, example.answer) == (own.text, own.labels, own.answer)


def test_golden_cases_of_the_example_are_of_both_sides() -> None:
    init_project(Path(), None, None)
    assert {case.label for case in load_golden("policies/harassment")} == {"HA0", "HA1", "HA3"}
    rows = [json.loads(line) for line in Path("data/example.jsonl").read_text().splitlines()]
    assert len({row["text"] for row in rows}) == 8


@pytest.mark.slow
def test_wheel_has_the_templates(tmp_path: Path) -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        if name.startswith("pipelines/moderay") or name in (
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ):
            target = tmp_path / "src" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "src", check=True)
    [wheel] = (tmp_path / "src").glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    templates = ROOT / "pipelines/moderay/tasks/init/templates"
    assert {f"moderay/tasks/init/templates/{file.name}" for file in templates.iterdir()} <= shipped
