"""label, render: what is done with policies and a few texts."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import typer

from moderay.cli.console import warn_of_model
from moderay.core.errors import Problem, Problems, UserError, first_line

if TYPE_CHECKING:
    from moderay.config.job import Model

PolicyFolder = Annotated[Path, typer.Argument(help="Policy folder.", show_default=False)]
Effort = Annotated[Literal["low", "medium", "high"], typer.Option("--effort", help="Of reasoning.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Who judges: a hub id, a checkpoint's folder, or tiny, which is for trying only.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1,
        max=65535,
        envvar="MODERAY_PORT",
        help="Ask the engine that moderay try --port keeps warm.",
    ),
]

# What stands for standard input.
STDIN = "-"
# Bytes of a line that are kept: more than any content may have that is judged.
LONGEST_LINE = 2**25
# Bytes that are read at once.
READ_BYTES = 2**16

# Texts -> for each `flagged` and, by policy id, its decision.
Labeller = Callable[[Sequence[bytes]], Awaitable[Sequence[dict[str, Any]]]]


def chosen_model(name: str | None, effort: Literal["low", "medium", "high"]) -> Model:
    """Who judges. Raises `UserError` where nobody said it."""
    if name is None:
        raise UserError(
            "--model is missing: say who judges, such as openai/gpt-oss-safeguard-20b on a GPU, a "
            "checkpoint's folder, or tiny, whose labels on real content mean nothing"
        )
    from moderay.config.job import Model

    return Model(source=name, effort=effort)


def label(
    policies: Annotated[
        list[Path], typer.Argument(metavar="POLICY", help="Policy folders.", show_default=False)
    ],
    content: Annotated[str | None, typer.Option("--content", help="The text to judge.")] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Judge each line of a file; - is stdin."),
    ] = None,
    model: ModelName = None,
    effort: Effort = "low",
    port: Port = None,
) -> None:
    """Judge a text, or each line of a file or of stdin, and print verdicts as JSON.

    One text under one policy gives its verdict; otherwise each text gives a line.

    The exit status is 1 where a text has no verdict.

    Example: moderay label policies/spam --content 'Win a prize!' --model tiny
    """
    if STDIN in map(str, policies):
        policies = [policy for policy in policies if str(policy) != STDIN]
        file = _either(file, STDIN)
    if content is None and file is None:
        raise UserError("--content TEXT or --file FILE is missing (- is stdin): what is judged?")
    if content is not None and file is not None:
        raise UserError("--content beside --file: leave one of them out")
    if not policies:
        raise UserError("no policy is named: moderay label POLICY ... - judges lines of stdin")
    texts = iter([[content.encode("utf-8", "surrogateescape")]]) if content is not None else None
    batches = _lines(file or STDIN) if texts is None else texts
    show = _show_one if texts is not None and len(policies) == 1 else _show_line
    if port is not None:
        missed = asyncio.run(_label_all(_elsewhere(port, policies, model, effort), batches, show))
    else:
        spec = chosen_model(model, effort)
        missed = asyncio.run(_label_here(policies, spec, batches, show))
    raise typer.Exit(int(missed))


def _either(one: str | None, other: str) -> str:
    if one not in (None, other):
        raise UserError(f"--file {one} beside {other}: leave one of them out")
    return other


async def _label_here(
    policies: Sequence[Path],
    model: Model,
    batches: Iterator[list[bytes]],
    show: Callable[[int, bytes, dict[str, Any]], None],
) -> bool:
    from moderay.tasks.embedded_job import embedded_job
    from moderay.tasks.workbench.labels import label_texts
    from moderay.tasks.workbench.workbench import opened

    job, loaded = embedded_job("content", list(policies), model, {})
    warn_of_model(model)
    async with opened(job) as bench:
        return await _label_all(
            lambda texts: label_texts(bench, loaded, texts, model.effort), batches, show
        )


def _elsewhere(port: int, policies: Sequence[Path], model: str | None, effort: str) -> Labeller:
    """A labeller that asks a workbench that is served here."""
    from moderay.config.paths import absolute_source
    from moderay.tasks.workbench.client import ask

    served = ask(port, "/health")["model"]
    if model is not None and absolute_source(model, Path.cwd()) != served:
        raise UserError(f"--model {model}: at port {port} it is {served}; leave --model out")
    folders = [str(policy.resolve()) for policy in policies]

    async def labelled(texts: Sequence[bytes]) -> Sequence[dict[str, Any]]:
        contents = [text.decode("utf-8", "surrogateescape") for text in texts]
        body = {"policy": folders, "content": contents, "effort": effort}
        answer = await asyncio.to_thread(ask, port, "/label", body)
        labels: Sequence[dict[str, Any]] = answer["labels"]
        return labels

    return labelled


async def _label_all(
    labeller: Labeller,
    batches: Iterator[list[bytes]],
    show: Callable[[int, bytes, dict[str, Any]], None],
) -> bool:
    """Whether a text has no verdict although it has a content."""
    from moderay.core.verdicts import RETRYABLE

    number = 0
    missed = False
    while (texts := await asyncio.to_thread(next, batches, None)) is not None:
        for text, record in zip(texts, await labeller(texts), strict=True):
            number += 1
            show(number, text, record)
            missed |= any(d["status"] in RETRYABLE for d in record["policies"].values())
        sys.stdout.flush()
    return missed


def _show_one(_: int, __: bytes, record: dict[str, Any]) -> None:
    [decision] = record["policies"].values()
    print(json.dumps(decision, indent=1, ensure_ascii=False))


def _show_line(number: int, text: bytes, record: dict[str, Any]) -> None:
    shown = {"line": number, "flagged": record["flagged"], "content": text.decode(errors="replace")}
    print(json.dumps({**shown, "policies": record["policies"]}, ensure_ascii=False))


def _lines(file: str) -> Iterator[list[bytes]]:
    """The lines that each read brings, so that those of a slow pipe are judged as they come."""
    try:
        if file == STDIN and sys.stdin is None:
            raise UserError("stdin is closed: --file FILE or --content TEXT")
        if file == STDIN:
            yield from _batches(sys.stdin.buffer)
        else:
            with open(file, "rb", buffering=0) as stream:
                yield from _batches(stream)
    except OSError as error:
        raise Problems([Problem(file, None, f"cannot be read: {first_line(error)}")]) from None


def _batches(stream: BinaryIO) -> Iterator[list[bytes]]:
    left = bytearray()
    read = getattr(stream, "read1", stream.read)
    while piece := read(READ_BYTES):
        if b"\n" in piece:
            *lines, rest = bytes(left + piece).split(b"\n")
            left = bytearray(rest)
            yield [line.removesuffix(b"\r") for line in lines]
        elif len(left) < LONGEST_LINE:
            left += piece
    if left:
        yield [bytes(left).removesuffix(b"\r")]


def render(
    policy: PolicyFolder,
    content: Annotated[str, typer.Option("--content", help="The text to judge.")],
    effort: Effort = "low",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="tiny, or a checkpoint's folder. Default: harmony's own vocabulary."
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="One JSON list of token ids.")] = False,
    port: Port = None,
) -> None:
    """Show exactly what the model is given.

    Example: moderay render policies/spam --content 'Win a prize!'
    """
    if port is not None:
        from moderay.tasks.workbench.client import ask

        body = {"policy": str(policy.resolve()), "content": content, "effort": effort}
        answer = ask(port, "/render", body)
        print(json.dumps(answer["ids"]) if ids else answer["text"])
        return
    from moderay.config.policy import load_policy
    from moderay.engines.harmony.prompt import prompt
    from moderay.engines.harmony.vocabulary import vocabulary

    vocab = vocabulary(model)
    rendered = prompt(load_policy(policy), effort, vocab).render(vocab.encode(content))
    print(json.dumps(rendered) if ids else vocab.decode(rendered))
