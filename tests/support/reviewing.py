"""An output to review, without a run, and a server over it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moderay.config.policy import load_policy
from moderay.corpus.content import content_hash
from moderay.engines.harmony.prompt import instructions
from moderay.labels.layout import Layout
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import append_manifest
from moderay.labels.prevalence_records import PlannedRow, PrevalencePlan
from moderay.labels.prevalence_store import add_plan
from moderay.labels.review_records import Review
from moderay.labels.reviews import ReviewStore
from moderay.tasks.review.items import Item
from moderay.tasks.review.opening import wanted_rows
from moderay.tasks.review.output import ReviewedOutput, open_output
from moderay.tasks.review.queues import queue_items
from support.label_folders import Row, label_folder
from support.project import ROOT

SPAM = load_policy(ROOT / "policies/spam")
# P of SP0, SP2 and SP4: far from the threshold on both sides, and near it.
SAFE, FLAGGED, NEAR = (0.9, 0.06, 0.04), (0.1, 0.1, 0.8), (0.55, 0.25, 0.2)
# What contents try that nothing may obey.
HOSTILE = (
    "<script>document.title = 'owned'; alert(1)</script>",
    '<img src=x onerror="alert(2)"> <svg onload="alert(3)"></svg>',
    '<a href="javascript:alert(4)">win</a> [win](javascript:alert(5))',
    "\x1b[31mred\x1b]0;owned\x07 \u202ereversed",
    "</div></main><style>*{display:none}</style><base href=https://example.org/>",
)


def spam_rows(count: int, texts: Sequence[str] = ()) -> list[Row]:
    """Rows of one policy: safe, flagged and near in turns."""
    scores = (SAFE, FLAGGED, NEAR)
    given = [*texts, *(f"text number {number}" for number in range(count - len(texts)))]
    return [(text, {"spam": scores[at % 3]}) for at, text in enumerate(given)]


def spam_output(folder: Path, shards: Mapping[str, Sequence[Row]]) -> ReviewedOutput:
    """An output, labelled under the policy spam."""
    label_folder(folder, [SPAM], shards, {"policy": instructions(SPAM), "answer": SPAM.answer})
    titles = {name: label.title for name, label in SPAM.labels.items()}

    def titled(manifest: Manifest | None) -> Manifest:
        assert manifest is not None
        policy = manifest.policies["spam"].model_copy(update={"label_titles": titles})
        return manifest.model_copy(update={"policies": {"spam": policy}})

    append_manifest(Layout(str(folder)), titled)
    return open_output(str(folder), {})


def items_of(output: ReviewedOutput, *queues: str, most: int = 20) -> list[Item]:
    """What is asked about an output."""
    return queue_items(output, output.chosen([]), wanted_rows(queues, most))


def kept(folder: Path) -> list[Review]:
    """Every answer that lies in an output."""
    return ReviewStore(Layout(str(folder))).read()


def files_of(folder: Path) -> list[str]:
    """Names of the files in which they lie."""
    return sorted(file.name for file in (folder / "_moderay/reviews").glob("*"))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@dataclass
class Served:
    """A server in a process of its own.

    Attributes:
        process: To be killed.
        links: By reviewer.
    """

    process: subprocess.Popen[str]
    links: Mapping[str, str]

    @property
    def origin(self) -> str:
        """The beginning of all its addresses."""
        return next(iter(self.links.values())).partition("/?")[0]


def start(output: Path, port: int, *reviewers: str, more: Sequence[str] = ()) -> Served:
    """Start `moderay review`, and wait for its links."""
    names = [word for name in reviewers for word in ("--as", name)]
    command = [sys.executable, "-m", "moderay", "review", str(output), "--port", str(port)]
    process = subprocess.Popen(
        [*command, *names, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    links = {}
    for name in reviewers:
        line = process.stdout.readline()
        found = re.fullmatch(r"(\S+): (http://\S+)\n", line)
        assert found is not None and found[1] == name, line
        links[name] = found[2]
    return Served(process, links)


@contextmanager
def served(output: Path, port: int, *reviewers: str, more: Sequence[str] = ()) -> Iterator[Served]:
    """A server, ended afterwards as Ctrl-C does."""
    made = start(output, port, *reviewers, more=more)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
        made.process.wait(30)
        assert made.process.stdout is not None
        made.process.stdout.close()


def write_plan(output: ReviewedOutput, plan: str, rows: Sequence[int]) -> None:
    """A prevalence plan that drew these rows of `a.parquet` under spam.

    Args:
        output: Of `spam_rows`.
        plan: The plan's id.
        rows: In the order in which they are to be reviewed.
    """
    policy = output.policies["spam"]
    drawn = tuple(
        PlannedRow(
            policy=policy.id,
            content_hash=content_hash([f"text number {row}"]),
            shard="a.parquet",
            row=row,
            stratum=0,
        )
        for row in rows
    )
    made = PrevalencePlan(
        id=plan,
        created="2026-11-20T00:00:00+00:00",
        policy=policy.id,
        policy_hash=policy.hash,
        labels={name: label.violates for name, label in policy.labels.items()},
        threshold=policy.threshold,
        judged=len(rows),
        unjudged=0,
        width=None,
        expected_width=1.0,
        confidence=0.95,
        strata=(),
        rows=drawn,
    )
    assert add_plan(output.layout, made)
