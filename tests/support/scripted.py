"""Jobs with the scripted engine, and what that answers, where a test does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from support.project import ROOT

SCRIPT: dict[str, Any] = {
    "default": {
        "answer": '{"label": "SP0", "rationale": "Nothing."}',
        "reasoning": "Nothing here.",
        "p": 0.9,
    },
    "rules": [
        {
            "content": "prize",
            "answer": '{"label": "SP4", "rationale": "A prize."}',
            "reasoning": "A prize.",
            "p": 0.8,
        },
        {
            "content": "shop",
            "answer": '{"label": "SP2", "rationale": "A shop."}',
            "reasoning": "A shop.",
            "p": 0.6,
        },
        {"content": "broken", "output": "<|channel|>analysis<|message|>never ends"},
        {"content": "failing", "fail": "request"},
        {"content": "hanging", "fail": "hang"},
    ],
}


def write_job(
    folder: Path, script: Mapping[str, Any] = SCRIPT, prefix: str = "", **sections: Any
) -> Path:
    """A job over folder/in, written with its script.

    Args:
        folder: Where both are put.
        script: What the engine answers.
        prefix: Of the names of both files, job.yaml and script.yaml.
        sections: Sections of the job, each instead of the one that is here.
    """
    (folder / f"{prefix}script.yaml").write_text(yaml.safe_dump(dict(script)))
    job = {
        "name": "test",
        "input": {"path": "in", "content": "text"},
        "output": {"path": "out"},
        "policies": [str(ROOT / "policies" / "spam")],
        "model": {"source": f"scripted:{prefix}script.yaml"},
        **sections,
    }
    file = folder / f"{prefix}job.yaml"
    file.write_text(yaml.safe_dump(job, sort_keys=False))
    return file
