"""A policy folder to be written in, and a workbench over the scripted engine."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from moderay.config.job import Job, Model
from moderay.tasks.embedded_job import embedded_job
from moderay.tasks.workbench.rows import DataRows, text_row
from moderay.tasks.workbench.trial import Trial
from moderay.tasks.workbench.workbench import Workbench, opened
from support.project import ROOT
from support.scripted import SCRIPT

# What the script answers: a prize is SP4, a shop SP2, all else SP0.
CASES = [("claim your prize", "SP4"), ("a quiet day", "SP0"), ("my shop", "SP0")]


def policy_folder(folder: Path, cases: Sequence[tuple[str, str]] = CASES) -> Path:
    """The spam policy without rules, and a golden set."""
    made = folder / "spam"
    made.mkdir()
    shutil.copy(ROOT / "policies/spam/policy.md", made)
    lines = [json.dumps({"content": content, "label": label}) + "\n" for content, label in cases]
    (made / "golden.jsonl").write_text("".join(lines))
    return made


def script_file(folder: Path, **changes: Any) -> Path:
    """The scripted answers, each of which leaves a byte in asked.log."""
    file = folder / "script.yaml"
    log = {"log": str(folder / "asked.log")}
    file.write_text(yaml.safe_dump({**SCRIPT, **log, **changes}))
    return file


def asked(folder: Path) -> int:
    """Answers that were given."""
    log = folder / "asked.log"
    return log.stat().st_size if log.exists() else 0


def save(policy: Path, old: str, new: str) -> None:
    """As an editor does it: another file in the place of the old one."""
    file = policy / "policy.md"
    text = file.read_text()
    assert old in text
    (policy / ".policy.md.swp").write_text(text.replace(old, new))
    (policy / ".policy.md.swp").replace(file)


def scripted_job(policy: Path, script: Path) -> Job:
    """Judging under a policy by the scripted engine."""
    job, _ = embedded_job("content", [policy], Model(source=f"scripted:{script}"), {})
    return job


def with_trial(
    policy: Path,
    script: Path,
    use: Callable[[Trial, Workbench], Awaitable[None]],
    texts: Sequence[str] = (),
    golden: bool = True,
) -> None:
    """Use a trial of the golden cases and of these texts."""
    rows = [text_row(text, f"content {number}") for number, text in enumerate(texts, start=1)]

    async def used() -> None:
        async with opened(scripted_job(policy, script)) as bench:
            await use(Trial(bench, policy, DataRows(tuple(rows), ()), golden), bench)

    asyncio.run(used())
