"""The command line. Exit status: 0 done, 1 finished with rows or shards missed, 2 change something, 3 try again."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from moderay import tiny
from moderay.errors import ModerayError, Problems, UserError
from moderay.records import RETRYABLE, Status

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Label a corpus by policy.")
out, err = Console(), Console(stderr=True)

JobFile = Annotated[Path, typer.Argument(help="Job file (YAML).", show_default=False)]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the job, such as output.path=labels.")]
# Characters of a content that `run --show` prints.
SHOWN = 60
# What a terminal would obey instead of show. Content is printed without it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def main() -> None:
    """Entry point: errors that a person can mend end in one sentence."""
    # A thread of Ray Data that outlives a stopped run must not start another cluster as this process ends.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        app(standalone_mode=True)
    except Problems as error:
        for problem in error.problems:
            _warn(str(problem))
        print(f"{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}; nothing was written", file=sys.stderr)
        sys.exit(error.exit_status)
    except ModerayError as error:
        _warn(f"moderay: {error}")
        logging.disable()  # threads of Ray Data that end with this process would tell of it at length
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("moderay: stopped; nothing had been judged yet", file=sys.stderr)
        sys.exit(3)


@app.command()
def check(job: JobFile, sets: Sets = None) -> None:
    """Report everything wrong with a job, its policies and its input; judge nothing."""
    from moderay.check import check as check_file

    checked = check_file(job, sets or ())
    for name, reason in checked.scan.unreadable:
        _warn(f"warning: {name} cannot be read and will be left out: {reason}")
    shards = checked.scan.shards
    out.print(f"{job}: ok: {len(shards)} shards, {checked.scan.rows:,} rows, {len(checked.policies)} policies")


@app.command()
def plan(job: JobFile, sets: Sets = None, replace: bool = False) -> None:
    """What a run would do: shards, units, rows, what is published already, tokens."""
    from moderay.check import check as check_file
    from moderay.plan import make_plan
    from moderay.units import spans

    checked = check_file(job, sets or ())
    found = make_plan(checked, replace)
    units = sum(len(span.units) for work in found.todo for span in spans(work.shard, work.missing, checked.job.unit))
    size = sum(shard.content_bytes for shard in checked.scan.shards)
    share = found.rows_left / max(1, checked.scan.rows)
    prompts = sum(len(judge.prompt.prefix) for judge in found.judges)
    table = Table(show_header=False, box=None)
    for name, value in (
        ("shards", f"{len(checked.scan.shards):,}"),
        ("published", f"{len(found.done):,}"),
        ("to decide again", f"{sum(work.redecide for work in found.todo):,}"),
        ("rows", f"{checked.scan.rows:,}"),
        ("rows to judge", f"{found.rows_left:,}" + (" before where and sample" if checked.job.input.where or checked.job.input.sample else "")),
        ("units to judge", f"{units:,}"),
        ("content bytes", f"{size:,}"),
        # Four bytes of text a token: the usual estimate for English.
        (
            "prompt tokens, about",
            f"{int(found.rows_left * prompts + share * size / 4 * len(found.judges)):,} ({prompts * found.rows_left:,} of them cached prefixes)",
        ),
        ("requests, at least", f"{2 * found.rows_left * len(found.judges):,}"),
    ):
        table.add_row(name, value)
    out.print(table)


@app.command()
def run(
    job: JobFile,
    sets: Sets = None,
    replace: Annotated[bool, typer.Option("--replace", help="Judge again what the output holds under another cascade.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Judge rows again that timed out, did not parse or met an engine error.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove the labels of shards that are gone from the input.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Judge only the first N rows, show them, and write nothing.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the verdicts (with --limit).")] = False,
    progress_file: Annotated[Path | None, typer.Option("--progress", help="Append progress as JSON lines to this file.")] = None,
    reference: Annotated[str, typer.Option("--agreement", hidden=True, metavar="PREFIX", help="Compare with truth columns PREFIX<policy>.")] = "",
) -> None:
    """Label what is selected and not published yet."""
    from moderay.check import check as check_file

    checked = check_file(job, sets or ())
    _notice(checked.job.model.source)
    for name, reason in checked.scan.unreadable:
        _warn(f"warning: {name} cannot be read and is left out: {reason}")
    if limit is not None:
        return _look(checked, limit, show)
    from moderay.flow import run as run_checked
    from moderay.progress import Progress

    outcome = run_checked(checked, replace=replace, retry_failed=retry_failed, prune=prune, progress=Progress(err, log=progress_file))
    if not outcome.worked:
        out.print(f"nothing to do: {outcome.manifest['shards']:,} shards with {outcome.manifest['rows']:,} rows are published in {checked.job.output.path}")
    else:
        _summary(outcome)
        out.print(f"labels: {checked.job.output.path}", soft_wrap=True)
    if reference:
        out.print(f"agreement {_agreement(checked, reference):.2f}")
    if failed := sum(counts[status.value] for counts in outcome.manifest["counts"].values() for status in RETRYABLE):
        _warn(f"note: {failed:,} verdicts are missing (timeout, unparsed or engine_error); --retry-failed asks for them again")
    for name in outcome.pruned:
        out.print(f"pruned: {printable(name)}", soft_wrap=True)
    if gone := outcome.manifest["gone"]:
        _warn(f"note: the input no longer has {len(gone):,} shards whose labels are here, such as {gone[0]}; --prune removes them")
    for kind in ("unreadable", "failed"):
        for name, reason in outcome.manifest[kind].items():
            _warn(f"{kind}: {name}: {reason}")
    raise typer.Exit(outcome.exit_status)


@app.command()
def label(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    model: Annotated[str, typer.Option("--model", help="Hub id, folder, or tiny.")] = "tiny",
    effort: Annotated[str, typer.Option("--effort", help="low, medium or high.")] = "low",
) -> None:
    """Judge one text and print the verdict as JSON."""
    from moderay.content import texts
    from moderay.inline import judge_here
    from moderay.job import Job
    from moderay.policy import load_policy
    from moderay.units import prepared

    _notice(model)
    job = Job.model_validate(
        {
            "input": {"path": "", "content": "content"},
            "output": {"path": ""},
            "policies": [str(policy)],
            "model": {"source": model, "effort": _effort(effort)},
        }
    )
    spec = load_policy(policy)
    rows = prepared([0], texts(pa.chunked_array([[content]])), job, _vocabulary(model))
    found = judge_here(job, [spec], rows).column(spec.id)[0].as_py()
    print(json.dumps(found, indent=1, ensure_ascii=False))


@app.command()
def render(
    policy: Annotated[Path, typer.Argument(help="Policy folder.")],
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    effort: Annotated[str, typer.Option("--effort", help="low, medium or high.")] = "low",
    model: Annotated[str | None, typer.Option("--model", help="tiny, or a checkpoint's folder; by default harmony's own vocabulary.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="One JSON list of token ids.")] = False,
) -> None:
    """Show exactly what the model is given."""
    from moderay.policy import load_policy
    from moderay.prompt import prompt

    vocab = _vocabulary(model)
    rendered = prompt(load_policy(policy), _effort(effort), vocab).render(vocab.encode(content))
    print(json.dumps(rendered) if ids else vocab.decode(rendered))


def _effort(text: str) -> Any:
    if text not in ("low", "medium", "high"):
        raise UserError(f"--effort {text!r}: valid are low, medium, high")
    return text


def _vocabulary(source: str | None) -> Any:
    from moderay.prompt import vocabulary

    return vocabulary(str(tiny.FOLDER) if source == "tiny" else source)


def _notice(source: str) -> None:
    if source == "tiny":
        print(f"note: {tiny.NOTICE}", file=sys.stderr)


def _look(checked: Any, limit: int, show: bool) -> None:
    """Judge the first rows here and now, without the output."""
    from moderay.check import engine_and_judges
    from moderay.inline import first_rows, judge_here
    from moderay.prompt import vocabulary

    vocab = vocabulary(engine_and_judges(checked.job, checked.policies, gpus=0)[0].vocabulary_source)
    rows = first_rows(checked, limit, vocab)
    judged = judge_here(checked.job, checked.policies, rows).to_pylist()
    if show:
        table = Table("row", "content", *[policy.id for policy in checked.policies])
        for row in judged:
            text = printable(" ".join(vocab.decode((row["ids"] or [])[:SHOWN]).split())[:SHOWN])
            table.add_row(str(row["row"]), text, *[_verdict(row[policy.id]) for policy in checked.policies])
        out.print(table)
    out.print(f"{len(judged)} rows judged, nothing written")


def _verdict(verdict: dict[str, Any]) -> str:
    if verdict["status"] != Status.OK:
        return str(verdict["status"])
    return printable(f"{verdict['label']} {verdict['probability']:.2f} {verdict['rationale'] or ''}")


def printable(text: str) -> str:
    """Text without what a terminal would obey, and without Rich's markup."""
    from rich.markup import escape

    return escape(_inert(text))


def _inert(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)


def _warn(text: str) -> None:
    """A message on stderr. Names in it may come from other people's storage."""
    print("\n".join(map(_inert, text.split("\n"))), file=sys.stderr)


def _summary(outcome: Any) -> None:
    """Per policy: judged, flagged, forced, every other count that is not zero, and this run's rates."""
    totals = outcome.manifest["counts"]
    rare = ["reused", *(status.value for status in Status if status is not Status.OK)]
    others = [name for name in rare if any(counts[name] for counts in totals.values())]
    table = Table("policy", "judged", "flagged", "forced", *others, "rows/s", "tokens/s", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in totals.items():
        rates = [f"{rate:,.0f}" for rate in outcome.rates.get(name, ())] or ["", ""]
        table.add_row(name, *[f"{counts[field]:,}" for field in ("ok", "flagged", "forced", *others)], *rates)
    out.print(table)
    rows, shards = outcome.manifest["rows"], outcome.manifest["shards"]
    out.print(f"{rows:,} rows in {shards:,} shards; this run: {outcome.judged:,} in {outcome.seconds:.0f} s{_reused(outcome)}")


def _reused(outcome: Any) -> str:
    reused = outcome.manifest["runs"][-1]["reused_verdicts"]
    return f", {reused:,} verdicts from before" if reused else ""


def _agreement(checked: Any, prefix: str) -> float:
    """Share of (row, policy) pairs with a known truth on which `violates` agrees with it."""
    from moderay.state import Layout

    layout = Layout(checked.job.output.path, checked.job.storage)
    same = known = 0
    for shard in checked.scan.shards:
        table = pq.read_table(layout.fs.open(layout.label(shard.name), "rb"))
        for policy in checked.policies:
            said = [verdict["violates"] for verdict in table.column(policy.id).to_pylist()]
            pairs = [(a, b) for a, b in zip(table.column(prefix + policy.id).to_pylist(), said, strict=True) if a is not None]
            known += len(pairs)
            same += sum(a == b for a, b in pairs)
    return same / known


if __name__ == "__main__":
    main()
