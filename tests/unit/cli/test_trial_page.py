"""The page of `moderay try`: its keys, what it shows of a save, and contents that mean harm."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from support.workbenches import save, script_file, with_trial
from textual.pilot import Pilot
from textual.widgets import DataTable, OptionList, Static

from moderay.cli.trial_page import TrialPage
from moderay.core.errors import UserError
from moderay.tasks.workbench.trial import Trial
from moderay.tasks.workbench.workbench import Workbench

pytestmark = pytest.mark.usefixtures("policy")

Use = Callable[[TrialPage, Pilot[Any]], Awaitable[None]]
HOSTILE = "\x1b[2J[bold]prize[/bold] [/nonsense] \u202e[@click=app.quit]x[/] 点击 \U0001f389\nend"


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes within seconds."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "nothing came of it"
        await asyncio.sleep(0.05)


def static(page: TrialPage, name: str) -> str:
    content = page.screen_stack[0].query_one(f"#{name}", Static).content
    return content.plain if isinstance(content, Text) else str(content)


def rows(page: TrialPage) -> list[list[str]]:
    """The table's cells but for the contents."""
    table = page.screen_stack[0].query_one(DataTable)
    return [[cell.plain for cell in table.get_row_at(i)[:-1]] for i in range(table.row_count)]


def marked(page: TrialPage) -> int:
    return page.screen_stack[0].query_one(DataTable).cursor_row


def with_page(
    tmp_path: Path, use: Use, texts: tuple[str, ...] = (), golden: bool = True, **script: Any
) -> None:
    """A page over the scripted engine, 80 cells wide, once all rows are judged."""

    async def shown(trial: Trial, bench: Workbench) -> None:
        page = TrialPage(trial, bench, "scripted, effort low", None)
        async with page.run_test(size=(80, 24)) as pilot:
            await until(lambda: re.search(r"rows? in [0-9.]+ s", static(page, "head")) is not None)
            await use(page, pilot)

    with_trial(tmp_path / "spam", script_file(tmp_path, **script), shown, texts, golden)


def test_rows_come_with_wrong_ones_first_and_arrows_show_each_in_full(tmp_path: Path) -> None:
    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        assert "2 of 3 golden cases right, 1 on the wrong side" in static(page, "head")
        assert rows(page) == [
            ["golden 3", "SP2", "0.80", "wrong"],
            ["golden 1", "SP4", "0.90", "right"],
            ["golden 2", "SP0", "0.10", "right"],
        ]
        assert static(page, "text").splitlines()[:4] == [
            "golden 3",
            "label: SP2 Unwanted promotion, P 0.80",
            "right: SP0 Not spam",
            "rationale: A shop.",
        ]
        for key, row in (("down", 1), ("n", 2), ("n", 2), ("up", 1), ("p", 0), ("p", 0)):
            await pilot.press(key)
            await pilot.pause()
            assert marked(page) == row
            assert static(page, "text").startswith(rows(page)[row][0])

    with_page(tmp_path, use)


def test_saving_the_policy_shows_what_changed(tmp_path: Path, policy: Path) -> None:
    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        save(policy, "threshold: 0.5", "threshold: 0.85")
        await until(lambda: "1 changed" in static(page, "head"))
        assert rows(page)[0] == ["golden 3", "SP2 -> SP0", "0.80", "right"]
        assert "before: SP2 Unwanted promotion, P 0.80" in static(page, "text")
        assert "3 of 3 golden cases right" in static(page, "head")

        save(policy, "threshold: 0.85", "threshold: many")
        await until(lambda: "verdicts are of an earlier text" in static(page, "head"))
        assert static(page, "problems").startswith(f"{policy}/policy.md:10: threshold: ")
        assert len(rows(page)) == 3
        save(policy, "threshold: many", "threshold: 0.85")
        await until(lambda: "earlier text" not in static(page, "head"))
        assert static(page, "problems") == ""

    with_page(tmp_path, use)


def test_rows_that_are_asked_again_say_so_and_keep_their_labels(
    tmp_path: Path, policy: Path
) -> None:
    stuck = tmp_path / "stuck"

    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        stuck.touch()
        save(policy, "# Spam", "# Much spam")
        await until(lambda: "asking 1 of 3" in static(page, "head"))
        assert [row for row in rows(page) if row[3] == "asking"] == [
            ["golden 1", "SP4", "0.90", "asking"]
        ]
        # The next save does not wait for it.
        stuck.unlink()
        save(policy, "# Much spam", "# More spam")
        await until(lambda: "asking" not in static(page, "head"))

    answer = {"answer": '{"label": "SP4", "rationale": "x"}', "p": 0.8}
    hang = {"content": "prize", "fail": "hang", "while": str(stuck)}
    with_page(tmp_path, use, rules=[hang, {"content": "prize", **answer}])


@pytest.mark.slow
def test_key_a_asks_for_the_label_and_adds_the_case(tmp_path: Path, policy: Path) -> None:
    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        before = (policy / "golden.jsonl").read_text()
        await pilot.press("a", "escape")
        await pilot.pause()
        assert (policy / "golden.jsonl").read_text() == before
        await pilot.press("a")
        await pilot.pause()
        choice = page.screen.query_one(OptionList)
        # The label that it has is marked: enter alone says that it is right.
        assert choice.highlighted == 2
        await pilot.press("up", "enter")
        await until(lambda: "0 of 1 golden cases right" in static(page, "head"))
        added = (policy / "golden.jsonl").read_text().removeprefix(before)
        assert json.loads(added) == {"content": HOSTILE, "label": "SP2", "boundary": False}
        assert rows(page) == [["content 1", "SP4", "0.90", "wrong"]]

        await pilot.press("a", "enter")
        await until(
            lambda: any("has this content already" in n.message for n in page._notifications)
        )

    with_page(tmp_path, use, (HOSTILE,), golden=False)


def test_a_save_while_the_label_is_asked_for_is_judged_and_the_question_stays(
    tmp_path: Path, policy: Path
) -> None:
    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        await pilot.press("a")
        await pilot.pause()
        save(policy, "threshold: 0.5", "threshold: 0.85")
        await until(lambda: "1 changed" in static(page, "head"))
        assert page.screen.query_one(OptionList).has_focus
        await pilot.press("escape")
        await pilot.pause()
        assert rows(page)[0] == ["golden 3", "SP2 -> SP0", "0.80", "right"]

    with_page(tmp_path, use)


def test_contents_and_rationales_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        shown = static(page, "text")
        assert "\ufffd[2J[bold]prize[/bold] [/nonsense] \ufffd[@click=app.quit]x[/]" in shown
        assert "rationale: \ufffd]0;title\ufffd [red]why[/red]" in shown
        svg = page.export_screenshot()
        assert "[bold]prize[/bold]" in svg.replace("&#160;", " ")

    rationale = "\x1b]0;title\x07 [red]why[/red]"
    answer = json.dumps({"label": "SP4", "rationale": rationale})
    with_page(
        tmp_path, use, (HOSTILE,), golden=False, rules=[{"content": "prize", "answer": answer}]
    )


def test_key_r_asks_again_for_what_failed(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.touch()

    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        assert rows(page) == [["content 1", "engine_error", "", ""]]
        bad.unlink()
        await pilot.press("r")
        await until(lambda: rows(page) == [["content 1", "SP0", "0.10", ""]])

    rules = [{"content": "unlucky", "fail": "request", "while": str(bad)}]
    with_page(tmp_path, use, ("unlucky",), golden=False, rules=rules)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_keys_that_end_it(key: str, tmp_path: Path) -> None:
    async def use(page: TrialPage, pilot: Pilot[Any]) -> None:
        await pilot.press(key)
        await until(lambda: not page.is_running)
        assert (page.return_code, page.return_value) == (0, None)

    with_page(tmp_path, use)


def test_a_model_that_cannot_be_had_ends_the_page_with_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def shown(trial: Trial, bench: Workbench) -> None:
        async def refused(*_: object) -> None:
            raise UserError("model 'x' cannot be started")

        monkeypatch.setattr(bench, "judge", refused)
        page = TrialPage(trial, bench, "x", None)
        async with page.run_test():
            await until(lambda: not page.is_running)
        assert str(page.return_value) == "model 'x' cannot be started"

    with_trial(tmp_path / "spam", script_file(tmp_path), shown)
