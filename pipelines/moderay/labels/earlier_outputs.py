"""The outputs whose verdicts may be taken, as far as their manifests and markers say.

What is known of them before a cluster is touched; `labels/reuse.py` reads the verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moderay.core.errors import UserError
from moderay.core.storage import canonical_url, filesystem, is_glob, plain_errors
from moderay.judges.glance import Band
from moderay.labels.layout import Layout, list_state, published_markers, read_markers
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import outputs, read_manifest

if TYPE_CHECKING:
    from moderay.judges.cascade import Cascade

# Lost label files that are named; of the others only the number is told.
NAMED = 3

# By policy: the judges whose verdicts may be taken, and the band outside which they may.
Usable = Mapping[str, Mapping[str, Band | None]]


@dataclass(frozen=True)
class LabelFile:
    """A published shard whose verdicts may be taken; picklable.

    Attributes:
        output: its number among the outputs, of which this run's is 0.
        shard: path of the label file below the output.
        usable: what of it may be taken.
    """

    output: int
    shard: str
    usable: Usable


def usable_verdicts(
    cascades: Sequence[Cascade], judges: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, Band | None]]:
    """What of a label file stands in these cascades too.

    Args:
        cascades: of this run.
        judges: the judge keys that its marker names, by policy and judge.
    """
    by_policy = {
        cascade.policy.id: cascade.reusable(judges.get(cascade.policy.id, {}))
        for cascade in cascades
    }
    return {policy: taken for policy, taken in by_policy.items() if taken}


def own_label_files(
    layout: Layout, markers: Sequence[str], cascades: Sequence[Cascade]
) -> tuple[list[LabelFile], int]:
    """Label files of the output itself whose verdicts may be taken, and how many rows they have.

    Args:
        layout: of the output.
        markers: paths of theirs.
        cascades: of this run.
    """
    files, rows = list[LabelFile](), 0
    for marker in read_markers(layout, markers):
        if usable := usable_verdicts(cascades, marker.judges):
            rows += marker.rows
            files.append(LabelFile(0, marker.shard, usable))
    return files, rows


@dataclass(frozen=True)
class EarlierOutput:
    """An output that `reuse:` names.

    Attributes:
        layout: of the output.
        rows: in the shards.
        shards: by label file, what of it may be taken.
        manifest: of the output.
        lost: label files that are gone, or are not those that were published.
    """

    layout: Layout
    rows: int
    shards: Mapping[str, Usable]
    manifest: Manifest
    lost: Sequence[str] = ()

    @property
    def notes(self) -> Iterator[str]:
        """What a person should know of it, a sentence each."""
        for shard in self.lost[:NAMED]:
            yield (
                f"earlier verdicts of {shard} are not used: its label file in {self.layout.url} is "
                "not the one that was published"
            )
        if len(self.lost) > NAMED:
            yield (
                f"nor are those of {len(self.lost) - NAMED:,} more of its shards: if the output "
                "was copied, run its job there once"
            )


def earlier_outputs(
    url: str, storage: Mapping[str, Any], cascades: Sequence[Cascade], own: str
) -> list[EarlierOutput]:
    """The outputs that an entry of `reuse:` names.

    Of those that a glob finds, the job's `own` is left out, and of one that is not finished counts
    what is published: a night that was stopped must not stop the next.

    Raises:
        UserError: the entry names none, or one that is not finished.
    """
    fs, path = filesystem(url, storage)
    if not is_glob(fs, path):
        return [earlier_output(url, storage, cascades)]
    with plain_errors(url):
        urls = outputs(url, storage)
    mine = canonical_url(own, storage)
    return [
        earlier_output(name, storage, cascades, finished=False)
        for name in urls
        if canonical_url(name, storage) != mine
    ]


def earlier_output(
    url: str, storage: Mapping[str, Any], cascades: Sequence[Cascade], finished: bool = True
) -> EarlierOutput:
    """Read an output's manifest and markers.

    Raises:
        UserError: there is none, or with `finished` its last run did not end.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"reuse: {url} is no output of moderay: it has no _moderay/manifest-N.json"
            )
        if finished and (status := manifest.status) != "finished":
            raise UserError(
                f"reuse: {url} is not finished (its last run: {status}): run its job to the end "
                "first, or leave it out"
            )
        shards, rows = dict[str, Usable](), 0
        state = list_state(layout)
        for shard, marker in published_markers(layout, state).items():
            if usable := usable_verdicts(cascades, marker.judges):
                rows += marker.rows
                shards[shard] = usable
    return EarlierOutput(layout, rows, shards, manifest, state.lost)
