"""Finished labels decided again: by people's answers, and under other thresholds.

No model is asked, and nothing is computed on a cluster: shards in which something changes are
written again, file and then marker as a run does it, side by side on this machine's cores.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from moderay.core.decision_rule import DecisionRule, under_thresholds
from moderay.core.errors import Problems, StoppedError, UserError
from moderay.core.storage import get, plain_errors, shown, size_and_version
from moderay.core.verdicts import HUMAN
from moderay.labels.corrections import Corrections, read_corrections, reviewed_policies
from moderay.labels.counts import PolicyCounts
from moderay.labels.label_file import stored_digest
from moderay.labels.layout import (
    Layout,
    MarkerName,
    State,
    list_state,
    marker_name,
    read_markers,
)
from moderay.labels.lease import Lease, assert_held
from moderay.labels.manifest_record import DecidedRecord, Manifest, RunRecord
from moderay.labels.manifest_store import append_manifest, read_manifest
from moderay.labels.records import ShardMarker
from moderay.pipeline import manifest as manifests
from moderay.tasks.decide.records import DecideRecord, PolicyDecided
from moderay.tasks.decide.shard import DecidedShard, Decision, decide_shard

# Shards that are looked at before the first of them is counted.
AHEAD = 256
# Is called with the number of shards done, and of all.
Progress = Callable[[int, int], None]


def decide(
    url: str,
    storage: Mapping[str, Any],
    thresholds: Mapping[str, float],
    progress: Progress = lambda done, total: None,
) -> DecideRecord:
    """Apply people's answers, and other thresholds, to an output's labels.

    Args:
        url: Of the output.
        storage: Options of its file system.
        thresholds: By policy; of those that are not named, they stay as they are.
        progress: Is called with the number of shards done, and of all.

    Raises:
        Problems: A threshold cannot be set.
        UserError: There are no labels, or their run has not ended.
        HeldError: Another driver writes the output.
        StoppedError: On Ctrl-C.
    """
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = finished_manifest(layout)
        rules = _rules(manifest, thresholds)
        people = read_corrections(layout, reviewed_policies(manifest))
        if _is_decided(manifest, rules, people):
            return _record(manifest, manifest, people, _Seen(shown(url), manifest.shards))
        with Lease(layout, least=_next_run(list_state(layout))) as lease:
            lease.assert_alone()
            before, manifest = manifest, finished_manifest(layout)
            if manifest.id != before.id:  # another driver was at work meanwhile
                people = read_corrections(layout, reviewed_policies(manifest))
            run = _run_record(lease.run, thresholds, people)
            append_manifest(layout, lambda now: manifests.decided(_there(now), run))
            decision = Decision(layout, rules, people.columns(), lease.run, storage)
            seen = _Seen(shown(url))
            for shard in _decided(decision, manifest, list_state(layout), progress, seen):
                seen.add(shard)
            assert_held(layout, lease.run)
            after = append_manifest(layout, lambda now: _ended(_there(now), run, people, seen))
    return _record(manifest, after, people, seen)


def _next_run(state: State) -> int:
    """A number that is higher than any run's that left a marker here."""
    runs = (name.run for names in state.markers.values() for name in names)
    return 1 + max(runs, default=-1)


def _is_decided(manifest: Manifest, rules: Sequence[DecisionRule], people: Corrections) -> bool:
    """Whether all labels hold what people say, under these thresholds."""
    thresholds = {name: policy.threshold for name, policy in manifest.policies.items()}
    return (
        manifest.status == "finished"
        and manifest.corrections == people.digest
        and all(thresholds[rule.policy] == rule.threshold for rule in rules)
    )


class _Seen:
    """What was decided, shard by shard.

    Attributes:
        output: URL of the labels.
        total: What the shards add up to now.
        shards: How many there are.
        rewritten: In how many something changed.
        turned: By policy, rows that came to the other side.
        lost: Shards whose label files are not those that were published.
    """

    def __init__(self, output: str, shards: int = 0) -> None:
        self.output, self.shards = output, shards
        self.total = manifests.OutputTotal()
        self.rewritten = 0
        self.turned: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.lost: list[str] = []

    def add(self, shard: DecidedShard) -> None:
        """Count a shard."""
        self.shards += 1
        self.total.add(shard.marker)
        self.rewritten += shard.rewritten
        for policy, counts in shard.turned.items():
            self.turned[policy].update(counts)


def finished_manifest(layout: Layout) -> Manifest:
    """An output's manifest.

    Raises:
        UserError: There is none, or the last run that judged has not ended in good order.
    """
    manifest = read_manifest(layout)
    if manifest is None:
        raise UserError(
            f"{shown(layout.url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
        )
    if (status := manifest.last_run.status) != "finished":
        raise UserError(
            f"the labels in {shown(layout.url)} are not finished (the last run: {status}): run "
            "their job to its end first"
        )
    return manifest


def _there(manifest: Manifest | None) -> Manifest:
    assert manifest is not None, "manifests are never removed"
    return manifest


def _rules(manifest: Manifest, thresholds: Mapping[str, float]) -> tuple[DecisionRule, ...]:
    """How labels are decided now.

    Raises:
        Problems: Of thresholds.
    """
    rules = [policy.rule(name) for name, policy in manifest.policies.items()]
    screened = {
        name
        for name, policy in manifest.policies.items()
        if "screen" in [judge.judge for judge in policy.cascade]
    }
    decided, problems = under_thresholds(rules, thresholds, screened)
    if problems:
        raise Problems(problems)
    return decided


def _run_record(run: int, thresholds: Mapping[str, float], people: Corrections) -> RunRecord:
    """This run, as it begins. It has no date: no night is its."""
    return RunRecord(
        run=run,
        status="running",
        started=_now(),
        host=platform.node(),
        decided=DecidedRecord(thresholds=dict(thresholds), corrections=people.digest),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()


def _decided(
    decision: Decision, manifest: Manifest, state: State, progress: Progress, seen: _Seen
) -> Iterator[DecidedShard]:
    """Every published shard, whether or not something in it was changed."""
    layout, shards = decision.layout, sorted(state.markers)
    judges = _judges(layout, state, manifest)

    def work(shard: str) -> DecidedShard | None:
        there = published(layout, state, shard)
        if there is None:
            return None
        marker, name = there
        is_others = judges is not None and marker.judges not in judges
        if is_others or marker.policies.keys() != manifest.policies.keys():
            return DecidedShard(marker)  # of a cascade before this one, and gone from the input
        return decide_shard(decision, marker, name, state.markers[shard])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for start in range(0, len(shards), AHEAD):
                some = shards[start : start + AHEAD]
                for number, (shard, done) in enumerate(
                    zip(some, pool.map(work, some), strict=True), start=start + 1
                ):
                    if done is None:
                        seen.lost.append(shard)
                    else:
                        yield done
                    progress(number, len(shards))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            message = "stopped: the same command goes on from here"
            raise StoppedError(message, 3) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _judges(layout: Layout, state: State, manifest: Manifest) -> list[Mapping[str, Any]] | None:
    """Who judged the shards that the input still has; None where it has lost none.

    Labels of a shard that is gone may be of another cascade, and of another text of the policy.
    """
    if not manifest.gone:
        return None
    gone = set(manifest.gone)
    names = {shard: state.published(shard) for shard in state.markers if shard not in gone}
    paths = [layout.marker(shard, name) for shard, name in names.items() if name is not None]
    judges: list[Mapping[str, Any]] = []
    for marker in read_markers(layout, paths):
        if marker.judges not in judges:
            judges.append(marker.judges)
    return judges or None


def published(layout: Layout, state: State, shard: str) -> tuple[ShardMarker, MarkerName] | None:
    """A shard's marker, and its name; None where none speaks of the label file that is there.

    Who died between a file and its marker left one that knows the file by its bytes: it is made a
    marker of the file. So it is with a copy, which has another time.
    """
    name = state.published(shard)
    if name is not None:
        path = layout.marker(shard, name)
        return ShardMarker.from_json(get(layout.fs, path), path), name
    stored, now = stored_digest(layout, shard), size_and_version(layout.fs, layout.label(shard))
    for other in sorted(state.markers[shard], key=lambda name: -name.run):
        path = layout.marker(shard, other)
        marker = ShardMarker.from_json(get(layout.fs, path), path)
        if now is not None and marker.label_file.digest == stored:
            file = marker.label_file.model_copy(update={"size": now[0], "version": now[1]})
            moved = marker.model_copy(update={"label_file": file})
            name = marker_name(moved, other.key, other.decision)
            layout.create(layout.marker(shard, name), moved.to_json())
            return moved, name
    return None


def _ended(before: Manifest, run: RunRecord, people: Corrections, seen: _Seen) -> Manifest:
    """The manifest with all that was decided."""
    assert run.decided is not None, "this run decides"
    decided = run.decided.model_copy(update={"shards": seen.rewritten})
    ended = run.model_copy(update={"status": "finished", "ended": _now(), "decided": decided})
    manifest = manifests.decided(before, ended)
    counted = manifests.recounted(manifest, seen.total, run.decided.thresholds)
    # With a shard that is lost the next run judges it, and lays over it what people say then.
    corrections = people.digest if not seen.lost else before.corrections
    return counted.model_copy(update={"corrections": corrections})


def _record(before: Manifest, after: Manifest, people: Corrections, seen: _Seen) -> DecideRecord:
    return DecideRecord(
        output=seen.output,
        shards=seen.shards,
        rewritten=seen.rewritten,
        lost=tuple(seen.lost),
        rows=after.rows,
        flagged=after.flagged,
        flagged_before=before.flagged,
        policies={
            name: _policy_record(name, before, after, people, seen.turned[name])
            for name in after.policies
        },
    )


def _policy_record(
    name: str, before: Manifest, after: Manifest, people: Corrections, turned: Mapping[str, int]
) -> PolicyDecided:
    was, now = (each.counts.get(name, PolicyCounts()) for each in (before, after))
    return PolicyDecided(
        threshold=after.policies[name].threshold,
        threshold_before=before.policies[name].threshold,
        flagged=now.flagged,
        flagged_before=was.flagged,
        by_people=now.settled.get(HUMAN, 0),
        by_people_before=was.settled.get(HUMAN, 0),
        reversed=sum(now.reversed.values()),
        to_flagged=turned.get("to_flagged", 0),
        to_safe=turned.get("to_safe", 0),
        withdrawn=now.withdrawn,
        corrections=len(people.by_policy.get(name, ())),
        void=sum(review.policy == name for review in people.void),
        disputed=sum(policy == name for policy, _ in people.disputed),
    )
