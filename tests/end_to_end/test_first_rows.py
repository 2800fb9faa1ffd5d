"""`run --limit --show`: what one needs to judge the judge, in a terminal, a pipe and as JSON."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from rich.console import Console
from support.project import ROOT

from moderay.cli import first_rows, row_text

WHY = "It asks people to click, 点击这里, [bold]again[/bold] and again. " * 6
TEXTS = ["hello", "claim your prize \x1b[2J\nnow", "broken", None, "word " * 400]
SCRIPT: dict[str, Any] = {
    "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}', "p": 0.9},
    "rules": [
        {
            "content": "prize",
            "answer": json.dumps({"label": "SP4", "rationale": WHY.strip()}, ensure_ascii=False),
            "reasoning": "A prize.",
            "p": 0.8,
        },
        {"content": "broken", "fail": "request"},
    ],
}
LINES = [
    "flagged: a.parquet row 1",
    "    claim your prize \ufffd[2J now",
    "    spam: SP4 Deceptive or malicious, P 0.90",
    f"        {WHY.strip()}",
    "not known: a.parquet row 2",
    "    broken",
    "    spam: engine_error",
]


@pytest.fixture
def scripted(job: Callable[..., Path], tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": TEXTS[:3]}), tmp_path / "in/a.parquet")
    pq.write_table(pa.table({"text": TEXTS[3:]}), tmp_path / "in/b.parquet")
    return job(SCRIPT)


def test_rows_are_shown_in_full_and_flagged_ones_first(scripted: Path, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", scripted, "--limit", "5", "--show", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    printed = result.stdout.splitlines()
    assert printed[: len(LINES)] == LINES
    headings = [line for line in printed if not line.startswith(" ")]
    assert headings[2:] == [
        "not known: b.parquet row 0",
        "not flagged: a.parquet row 0",
        "not flagged: b.parquet row 1",
        "5 rows judged, 1 flagged, nothing written",
    ]
    (long,) = (line for line in printed if "word word" in line)
    assert long.endswith(" ...") and "    spam: empty" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_folds_lines_and_cuts_none(
    width: int, scripted: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=width, color_system=None)
    for module in (first_rows, row_text):
        monkeypatch.setattr(module, "out", terminal)
    assert cli("run", scripted, "--limit", "3", "--show").returncode == 0
    printed = screen.getvalue()
    assert max(map(cell_len, printed.splitlines())) <= width
    assert len(printed.splitlines()) > len(LINES)
    assert "".join("".join(LINES).split()) in "".join(printed.split())


def test_json_has_the_same_and_the_reasoning(scripted: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", scripted, "--limit", "5", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["file"][0], row["row"]) for row in rows][:2] == [("a", 1), ("a", 2)]
    assert "5 rows judged, 1 flagged" in result.stderr
    assert rows[0] == {
        "file": "a.parquet",
        "row": 1,
        "flagged": True,
        "content": "claim your prize \x1b[2J now",
        "policies": {
            "spam": {
                "status": "ok",
                "violates": True,
                "label": "SP4",
                "title": "Deceptive or malicious",
                "probability": pytest.approx(0.9),
                "rationale": WHY.strip(),
                "reasoning": "A prize.",
                "detail": None,
            }
        },
    }
    assert rows[1]["policies"]["spam"]["detail"] and rows[1]["flagged"] is None


def test_without_show_nothing_but_the_count_is_printed(scripted: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", scripted, "--limit", "2")
    assert result.stdout == "2 rows judged, 1 flagged, nothing written\n"


def test_demo_ends_with_such_rows_and_a_path_to_open() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].partition("\n\n")[0]
    assert "--limit 6 --show" in recipe.splitlines()[-2]
    assert "Open demo/labels" in recipe.splitlines()[-1]
