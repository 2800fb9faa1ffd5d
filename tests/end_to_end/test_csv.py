"""CSV as it is published: judged, judged on, selected by its numbers, filtered as it was."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.corpora import get, put
from support.outputs import labels

from moderay.core.errors import Problems
from moderay.pipeline.check import check

# The columns of a chat corpus that many moderators know.
COLUMNS = [
    "conv_id", "user_input", "model_output", "human_annotation", "toxicity", "jailbreaking",
    "openai_moderation",
]  # fmt: skip
WORDS = ['say "hello",\r\nplease', "claim your prize", "visit\n\n\nmy shop", "a CASINO; é|\t", ""]
RULES = (
    "rules: [{id: forbidden, label: SP4, any_of: [casino]}, "
    "{id: ours, label: SP0, where: CAST(toxicity AS INT) = 7}]"
)


def chats(low: int, high: int) -> list[dict[str, str]]:
    return [
        {
            "conv_id": f"{i:032x}",
            "user_input": WORDS[i % 5],
            "model_output": f"Sure!\n\n1. First,\n2. \"Second\" of {i}",
            "human_annotation": str(bool(i % 2)),
            "toxicity": str(i % 8),
            "jailbreaking": "0",
            "openai_moderation": json.dumps([["hate", 1e-05], ["sexual", 0.25]]),
        }
        for i in range(low, high)
    ]  # fmt: skip


def written(rows: list[dict[str, str]], columns: list[str], **dialect: Any) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


FILES: dict[str, dict[str, Any]] = {
    "a.csv": {},
    "b.csv.gz": {"delimiter": ";", "quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
    "day=2/c.tsv.zst": {"delimiter": "\t"},
    "d.tsv": {"delimiter": "\t", "lineterminator": "\n"},
    "e.csv": {"delimiter": "|"},
}


@pytest.fixture
def chat_job(job, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    for number, (name, dialect) in enumerate(FILES.items()):
        columns = COLUMNS if number % 2 else COLUMNS[::-1]
        rows = chats(20 * number, 20 * number + 20)
        put(tmp_path, name, written(rows, columns, **dialect))
    policy = tmp_path / "spam"
    policy.mkdir()
    source = Path(__file__).parents[2] / "policies/spam"
    for file in ("policy.md", "golden.jsonl"):
        (policy / file).write_bytes((source / file).read_bytes())
    (policy / "rules.yaml").write_text(RULES)
    written_job: Path = job(
        input={"path": "in", "content": "user_input", "where": "CAST(toxicity AS DOUBLE) > 0.5"},
        policies=["spam"],
        cascade=["rules", {"reason": {}}],
        output={"path": "out", "columns": ["conv_id", "toxicity", "openai_moderation"]},
        filter={"keep": "NOT spam.violates", "out": "clean", "unselected": "hold"},
    )
    return written_job


@pytest.mark.slow
def test_chats_of_any_dialect_are_selected_judged_and_judged_on(
    chat_job: Path, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    hidden = tmp_path / "in/.e.csv"
    (tmp_path / "in/e.csv").rename(hidden)
    result = cli("run", chat_job)
    assert result.returncode == 0, result.stdout + result.stderr
    first = {name: table.to_pylist() for name, table in labels(tmp_path / "out").items()}
    hidden.rename(tmp_path / "in/e.csv")
    result = cli("run", chat_job)
    assert result.returncode == 0, result.stdout + result.stderr
    tables = labels(tmp_path / "out")
    assert {name: tables[name].to_pylist() for name in first} == first and len(tables) == 5
    for number, name in enumerate(FILES):
        rows = chats(20 * number, 20 * number + 20)
        actual = tables[f"{name.partition('.')[0]}.parquet"].to_pylist()
        assert [row["row"] for row in actual] == [i for i in range(20) if int(rows[i]["toxicity"])]
        for row in actual:
            source = rows[row["row"]]
            carried = ("conv_id", "toxicity", "openai_moderation")
            assert all(row[column] == source[column] for column in carried)
            verdict = row["spam"]
            if not source["user_input"]:
                assert verdict["status"] == "empty"
            elif "CASINO" in source["user_input"] or source["toxicity"] == "7":
                assert verdict["trace"]["decided_by"] == "rules"
            else:
                label = ["SP0", "SP4", "SP2"][WORDS.index(source["user_input"])]
                assert (verdict["label"], verdict["trace"]["decided_by"]) == (label, "reason")
    assert "nothing to do" in cli("run", chat_job).stdout


def test_filter_parts_a_file_into_files_that_hold_each_of_its_records(
    chat_job: Path, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    result = cli("filter", chat_job)
    assert result.returncode == 0, result.stdout + result.stderr
    for number, (name, dialect) in enumerate(FILES.items()):
        columns = COLUMNS if number % 2 else COLUMNS[::-1]
        rows = chats(20 * number, 20 * number + 20)
        kept = [
            row
            for row in rows
            if row["toxicity"] != "0"
            and row["user_input"]
            and (row["user_input"] == WORDS[0] or row["toxicity"] == "7")
            and "CASINO" not in row["user_input"]
        ]
        assert get(tmp_path / "clean/kept" / name) == written(kept, columns, **dialect)
        others = []
        for fate in ("removed", "held"):
            text = get(tmp_path / f"clean/{fate}" / name).decode()
            others += csv.DictReader(io.StringIO(text, newline=""), **dialect)
        for row in others:
            row.pop("moderay")
        by_id = sorted([*kept, *others], key=lambda row: row["conv_id"])
        assert [dict(row) for row in by_id] == rows


@pytest.mark.parametrize("condition", ["toxicity > 0.5", "toxicity = 1", "toxicity IN (0.5, 1)"])
def test_number_compared_with_text_is_told_how(chat_job: Path, condition: str) -> None:
    with pytest.raises(Problems, match="cannot compare string with numeric type") as refused:
        check(chat_job, [f"input.where={condition}"])
    hint = "toxicity is string; CAST(COLUMN AS DOUBLE) reads a text as a number"
    assert {problem.hint for problem in refused.value.problems} == {hint}


def test_file_in_another_encoding_is_left_out_with_what_to_do(
    chat_job: Path, cli, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    put(tmp_path, "f.csv", written(chats(0, 20), COLUMNS).decode().encode("latin-1"))
    reason = "f.csv: it is not UTF-8: convert the file, for example with iconv"
    result = cli("run", chat_job)
    assert result.returncode == 1 and f"unreadable: {reason}" in result.stderr
    # The next time there is nothing to do but to say it.
    result = cli("run", chat_job, "--brief")
    assert result.returncode == 1 and f"shards unreadable: 1, such as {reason}" in result.stdout
    assert list(json.loads(cli("run", chat_job, "--json").stdout)["unreadable"]) == ["f.csv"]
