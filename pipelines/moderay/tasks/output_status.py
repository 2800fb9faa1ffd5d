"""`moderay status OUTPUT`: how far an output is, and who is writing it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moderay.core.errors import UserError
from moderay.core.storage import plain_errors, shown
from moderay.labels.layout import Layout, published_markers
from moderay.labels.lease import WHOLE, claims, part_text, read_claim, renewed_at
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.labels.records import LeaseRecord


@dataclass(frozen=True)
class Writer:
    """A driver that holds a part of an output.

    Attributes:
        claim: Its claim.
        age: Seconds since it was renewed, by this machine's clock.
    """

    claim: LeaseRecord
    age: float


@dataclass(frozen=True)
class OutputStatus:
    """How far an output is.

    Attributes:
        manifest: The last one.
        shards: Published now.
        rows: Their label rows.
        flagged: Of these, rows that violate some policy.
        writers: Drivers that hold parts of it, or died.
    """

    manifest: Manifest
    shards: int
    rows: int
    flagged: int
    writers: tuple[Writer, ...]

    @property
    def complete(self) -> bool:
        """Whether the labels of the whole input are here, and nobody is writing."""
        is_whole = self.manifest.complete and self.shards == self.manifest.input_shards
        return is_whole and not self.writers


def output_status(url: str, storage: Mapping[str, Any]) -> OutputStatus:
    """Add up what is published now, by whichever driver.

    Raises:
        UserError: There is no output of moderay.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
            )
        markers = published_markers(layout).values()
        writers = tuple(
            Writer(claim, max(0.0, time.time() - (renewed_at(layout, run) or 0.0)))
            for run in claims(layout)
            if (claim := read_claim(layout, run)) is not None
        )
    return OutputStatus(
        manifest,
        len(markers),
        sum(marker.rows for marker in markers),
        sum(marker.flagged for marker in markers),
        writers,
    )


def status_json(output: str, status: OutputStatus) -> dict[str, Any]:
    """For machines: with all runs, also those that have not written their beginning yet."""
    manifest = status.manifest
    writers = {writer.claim.run: writer for writer in status.writers}
    runs: list[dict[str, Any]] = []
    for run in manifest.runs:
        writer = writers.pop(run.run, None)
        runs.append(
            {
                "run": run.run,
                "part": part_text(run.part or WHOLE),
                "host": run.host,
                "status": run.status,
                "renewed_s": None if writer is None else round(writer.age, 1),
                "started": run.started,
                "ended": run.ended,
                "seconds": run.seconds,
                "judged": run.judged,
            }
        )
    for number, writer in writers.items():
        runs.append(
            {
                "run": number,
                "part": part_text(writer.claim.part),
                "host": writer.claim.host,
                "status": "starting",
                "renewed_s": round(writer.age, 1),
                "started": None,
                "ended": None,
                "seconds": 0.0,
                "judged": 0,
            }
        )
    return {
        "output": output,
        "complete": status.complete,
        "shards": status.shards,
        "input_shards": manifest.input_shards,
        "rows": status.rows,
        "flagged": status.flagged,
        "runs": runs,
        "unreadable": manifest.unreadable,
        "failed": manifest.failed,
        "alarms": list(manifest.alarms),
    }
