"""`moderay try` in a terminal: rows that are judged again whenever the policy is saved."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Label, OptionList, Static
from textual.widgets.option_list import Option

from moderay.cli.trial_view import (
    COLUMNS,
    cells,
    column_widths,
    detail,
    one_line,
    problems_text,
    titled,
    urgency,
)
from moderay.core.errors import ModerayError, UserError
from moderay.core.wording import counted

if TYPE_CHECKING:
    from pathlib import Path

    from moderay.config.policy import Policy
    from moderay.tasks.workbench.trial import RowState, Trial
    from moderay.tasks.workbench.workbench import Workbench

# Seconds between two looks at the policy's files, and between two drawings of what has changed.
LOOK_S, DRAW_S = 0.2, 0.1


class LabelChoice(ModalScreen[str | None]):
    """Asks which label is the right one."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "back")]

    def __init__(self, policy: Policy, first: str | None) -> None:
        """`first`: the label that is likeliest to be chosen."""
        super().__init__()
        self._policy = policy
        self._first = first

    def compose(self) -> ComposeResult:
        """A list of labels."""
        names = self._policy.label_names
        with Vertical(id="choice"):
            yield Label("the right label? enter adds the case, escape goes back", markup=False)
            yield OptionList(*[Option(Text(titled(n, self._policy)), n) for n in names])

    def on_mount(self) -> None:
        """The label that the row gets is marked: enter says that it is right."""
        names = self._policy.label_names
        choice = self.query_one(OptionList)
        choice.highlighted = names.index(self._first) if self._first in names else 0
        choice.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """That is the answer."""
        self.dismiss(event.option.id)


class TrialPage(App[ModerayError | None]):
    """Rows above, the one that is marked in full below."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; max-height: 3; background: $panel; }
    #problems { height: auto; max-height: 40%; color: $text-error; display: none; }
    #rows { height: 1fr; }
    #detail { height: 1fr; border-top: solid $panel; }
    LabelChoice { align: center middle; }
    #choice { width: 60; max-width: 100%; height: auto; max-height: 80%; border: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("a", "add", "add to golden"),
        ("n", "move(1)", "next"),
        ("p", "move(-1)", "previous"),
        ("r", "again", "ask again"),
        ("q,ctrl+c", "quit", "quit"),
    ]

    def __init__(self, trial: Trial, bench: Workbench, title: str, note: Path | None) -> None:
        """A page.

        Args:
            trial: What is shown.
            bench: What judges it.
            title: Who judges.
            note: The file with the token of the port, where it is served.
        """
        super().__init__()
        self._trial = trial
        self._bench = bench
        self._title = title
        self._note = note
        self._began = time.monotonic()
        self._changed = True
        self._judging = False
        self._failure = ""
        self._names: list[str] = []
        # Held, since a query looks at the uppermost screen alone, and only while there is one.
        self._top = Static(id="head", markup=False)
        self._wrong = Static(id="problems", markup=False)
        self._table: DataTable[Text] = DataTable(id="rows", cursor_type="row")
        self._detail = Static(id="text", markup=False)

    def compose(self) -> ComposeResult:
        """Head, problems, rows, the marked row."""
        yield self._top
        yield self._wrong
        yield self._table
        with VerticalScroll(id="detail"):
            yield self._detail
        yield Footer()

    def on_mount(self) -> None:
        """Begin to judge, and to look for changes."""
        self._begin()
        self._draw()
        self.set_interval(LOOK_S, self._look)
        self.set_interval(DRAW_S, self._draw)
        self._table.focus()

    def on_resize(self, _: Resize) -> None:
        """Columns are as wide as there is room."""
        self._changed = True

    def _look(self) -> None:
        if self._trial.saved():
            self._changed = True
            if not self._trial.problems:
                self._begin()

    def _begin(self) -> None:
        """Judge what is open; who was asked under an earlier text need not answer any more."""
        self.run_worker(self._judge(), exclusive=True, exit_on_error=True)

    async def _judge(self) -> None:
        self._judging, self._failure, self._changed = True, "", True
        try:
            await self._trial.judge(self._note_change)
        except ModerayError as error:
            if not self._bench.is_warm and not self._bench.was_warm:
                self.exit(error)
            self._failure = str(error)
        self._judging, self._changed = False, True

    def _note_change(self) -> None:
        self._changed = True

    def _draw(self) -> None:
        """What has changed since the last time; while it loads, the seconds."""
        if self._changed or not self._bench.was_warm:
            self._top.update(Text(self._head()))
        if not self._changed:
            return
        self._changed = False
        self._wrong.display = bool(self._trial.problems)
        self._wrong.update(Text(problems_text(self._trial.problems)))
        self._draw_rows()

    def _head(self) -> str:
        trial = self._trial
        states = trial.states
        parts = [f"{trial.policy.policy.id}  {self._title}"]
        if trial.agreement.cases:
            parts.append(str(trial.agreement))
        if flipped := sum(state.has_flipped for state in states):
            parts.append(f"{flipped} changed")
        parts.append(self._state(sum(state.asking for state in states), len(states)))
        if self._note is not None:
            parts.append(f"token: {self._note}")
        return one_line(", ".join(filter(None, parts)))

    def _state(self, asking: int, count: int) -> str:
        if self._failure:
            return f"{self._failure}; r tries again"
        if self._trial.problems:
            return "does not load: verdicts are of an earlier text"
        if not self._bench.was_warm and self._judging:
            seconds = time.monotonic() - self._began
            return f"loading the model, {seconds:.0f} s (what it prints: {self._bench.log})"
        if asking:
            return f"asking {asking} of {count}"
        return f"{counted(count, 'row')} in {self._trial.seconds:.1f} s"

    def _draw_rows(self) -> None:
        table = self._table
        states = {state.row.name: state for state in self._trial.states}
        at, marked = table.cursor_row, self._marked()
        # While rows are asked for they stay where they are.
        if states.keys() != set(self._names) or not any(s.asking for s in states.values()):
            self._names = sorted(states, key=lambda name: urgency(states[name]))
        table.clear(columns=True)
        widths = column_widths(self.size.width)
        for title, width in zip(COLUMNS, widths, strict=True):
            table.add_column(title, width=width)
        for name in self._names:
            table.add_row(*cells(states[name], widths))
        # Who has gone down keeps the row; who is at the top keeps the top, with what is worst.
        if at and marked is not None and marked.row.name in states:
            table.move_cursor(row=self._names.index(marked.row.name))
        self._draw_detail()

    def _marked(self) -> RowState | None:
        """The row that is marked."""
        row = self._table.cursor_row
        name = self._names[row] if row < len(self._names) else None
        return next((state for state in self._trial.states if state.row.name == name), None)

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Another row is marked."""
        self._draw_detail()

    def _draw_detail(self) -> None:
        state = self._marked()
        text = Text("no rows: a golden case, --data or --content gives some")
        if state is not None:
            text = detail(state, self._trial.policy.policy)
        self._detail.update(text)

    def action_move(self, step: int) -> None:
        """Mark another row."""
        self._table.move_cursor(row=self._table.cursor_row + step)

    def action_again(self) -> None:
        """Ask once more for the marked row, and for those without a verdict."""
        if (state := self._marked()) is not None:
            self._trial.ask_again(state)
            self._begin()

    def action_add(self) -> None:
        """Make the marked row a golden case."""
        state = self._marked()
        if state is None:
            return

        def add(label: str | None) -> None:
            if label is None:
                return
            try:
                self._trial.add_golden(state, label)
            except UserError as error:
                self.notify(one_line(str(error)), severity="error", markup=False)
            else:
                self.notify(f"golden.jsonl has it, as {label}", markup=False)

        self.push_screen(LabelChoice(self._trial.policy.policy, state.right or state.label), add)
