"""label, render: what is done with one policy and one text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from moderay.cli.console import warn_of_model
from moderay.core.errors import UserError

PolicyFolder = Annotated[Path, typer.Argument(help="Policy folder.", show_default=False)]
Text = Annotated[str, typer.Option("--content", help="The text to judge.")]
Effort = Annotated[Literal["low", "medium", "high"], typer.Option("--effort", help="Of reasoning.")]


def label(
    policy: PolicyFolder,
    content: Text,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Who judges: a hub id, a checkpoint's folder, or tiny, which is for trying only.",
        ),
    ] = None,
    effort: Effort = "low",
) -> None:
    """Judge one text and print the verdict as JSON.

    Example: moderay label policies/spam --content 'Win a prize!' --model tiny
    """
    if model is None:
        raise UserError(
            "--model is missing: say who judges, such as openai/gpt-oss-safeguard-20b on a GPU, a "
            "checkpoint's folder, or tiny, whose labels on real content mean nothing"
        )
    from moderay.config.job import Model
    from moderay.tasks.quick_look import judge_text

    spec = Model(source=model, effort=effort)
    warn_of_model(spec)
    print(json.dumps(judge_text(content, policy, spec), indent=1, ensure_ascii=False))


def render(
    policy: PolicyFolder,
    content: Text,
    effort: Effort = "low",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="tiny, or a checkpoint's folder. Default: harmony's own vocabulary."
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="One JSON list of token ids.")] = False,
) -> None:
    """Show exactly what the model is given.

    Example: moderay render policies/spam --content 'Win a prize!'
    """
    from moderay.config.policy import load_policy
    from moderay.engines.harmony.prompt import prompt
    from moderay.engines.harmony.vocabulary import vocabulary

    vocab = vocabulary(model)
    rendered = prompt(load_policy(policy), effort, vocab).render(vocab.encode(content))
    print(json.dumps(rendered) if ids else vocab.decode(rendered))
