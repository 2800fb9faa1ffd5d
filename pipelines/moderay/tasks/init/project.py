"""`moderay init`: a folder with a job over somebody's own file, and a policy to begin with."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from moderay.config.paths import absolute_path
from moderay.core.errors import UserError
from moderay.corpus.formats import is_input
from moderay.pipeline.check import check
from moderay.tasks.init.corpus_look import CorpusLook, look_at
from moderay.tasks.init.files import create, filled, remove
from moderay.tasks.init.policy import EXAMPLE, example_policy

# Rows that a first run judges, about.
SAMPLED = 500


@dataclass(frozen=True)
class NewProject:
    """What `init` made.

    Attributes:
        job: The job file.
        policy: The policy's folder.
        data: What is judged, as it was named.
        files: All that was written, the job among them.
        look: What was found in the input.
    """

    job: Path
    policy: Path
    data: str
    files: list[Path]
    look: CorpusLook


def init_project(folder: Path, data: str | None, content: str | None) -> NewProject:
    """Make a job that `check` accepts, its policy, and what git ignores.

    Args:
        folder: Where; made where it is not there.
        data: What is judged: file, folder, glob or URL. Default: the one file of a format that is
            read in `folder`; where there is none, an example is written.
        content: Column, or template of columns, that is judged. Default: the only one it can be.

    Raises:
        Problems: Something would be overwritten, or the input does not fit; nothing is left then.
        UserError: The input or its column must be named.
    """
    root = Path(os.path.abspath(folder))
    job = folder / "job.yaml"
    new = {**example_policy(folder / "policies"), folder / ".gitignore": filled("gitignore")}
    data = data or _only_file(folder)
    if data is None:
        example = folder / "data" / "example.jsonl"
        new[example] = filled("example.jsonl")
        data, content = str(example), content or "text"
    path = absolute_path(data, Path.cwd())
    if root.is_relative_to(path):
        raise UserError(f"{folder} lies in the input {data}, and labels must not: name another")
    # All at once: what is in the way is told before the input is looked at.
    created = create({job: "", **new})
    try:
        look = look_at(path, content, str(root / "labels"), EXAMPLE)
        job.write_text(_job(root, look), encoding="utf-8")
        check(job)
    except BaseException:
        remove(created)
        raise
    return NewProject(job, folder / "policies" / EXAMPLE, data, [job, *new], look)


def _only_file(folder: Path) -> str | None:
    """The file of a folder that can be judged; None where there is none."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    fit = [
        name
        for name in names
        if is_input(name) and not name.startswith((".", "_")) and (folder / name).is_file()
    ]
    if len(fit) > 1:
        raise UserError(f"--data is missing: {folder} has several files: {', '.join(fit)}")
    return str(folder / fit[0]) if fit else None


def _job(folder: Path, look: CorpusLook) -> str:
    path = look.path
    if Path(path).is_relative_to(folder):
        path = Path(path).relative_to(folder).as_posix()
    return filled(
        "job.yaml",
        # A job file takes ${NAME} for a variable.
        name=_scalar(re.sub(r"[^\w.-]+", "-", folder.name) or "job"),
        path=_scalar(path),
        content=_scalar(look.content),
        where=look.where and _scalar(look.where),
        sample=_sample(look.rows),
        columns=_columns(look),
        policy=EXAMPLE,
    )


def _sample(rows: int) -> str:
    if rows < 2 * SAMPLED:
        return "  # sample: 0.5"
    share = float(f"{SAMPLED / rows:.1g}")
    return f"  sample: {share!r}  # about {share * rows:,.0f} of {rows:,} rows; without it, all"


def _columns(look: CorpusLook) -> str:
    if not look.left:
        return "all"
    return f"[{', '.join(map(_scalar, look.columns))}]"


def _scalar(text: str) -> str:
    """A text as YAML has it on one line: in quotes where it needs them."""
    plain: str = yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10**9)
    return plain.strip()[1:-1]
