"""`moderay prevalence OUTPUT --plan`: which rows to review, and how many it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from moderay.core.errors import UserError, first_line, nearest
from moderay.core.hashing import digest
from moderay.core.storage import plain_errors, shown
from moderay.labels.analysis.prevalence.allocation import (
    MOST,
    StratumRows,
    allocate,
    expected_width,
    reviews_needed,
)
from moderay.labels.analysis.prevalence.strata import (
    Counts,
    Strata,
    histogram_counts,
    midpoints,
    strata_of,
    uncertainty,
)
from moderay.labels.corrections import reviewed_policies
from moderay.labels.layout import Layout, State, list_state, published_markers
from moderay.labels.manifest_record import Manifest
from moderay.labels.manifest_store import read_manifest
from moderay.labels.prevalence_records import PlannedRow, PlannedStratum, PrevalencePlan
from moderay.labels.prevalence_store import add_plan, has_plan, read_plan
from moderay.labels.records import ShardMarker
from moderay.tasks.prevalence.draw import Drawn, DrawRequest, draw

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PlanRequest:
    """What a person asks for: a width, or a number of reviews.

    Attributes:
        policy: id; None: the only one of the output.
        width: of the interval of the share in all rows.
        reviews: how many.
        seed: another one draws other rows.
    """

    policy: str | None = None
    width: float | None = None
    reviews: int | None = None
    seed: int = 0


def plan_reviews(url: str, storage: Mapping[str, Any], request: PlanRequest) -> PrevalencePlan:
    """Draw rows to review, and keep which; the same request of the same labels is the same plan.

    Args:
        url: of the output.
        storage: options of its storage.
        request: what is asked for.

    Raises:
        UserError: there are no labels or no such policy, or the request cannot be met.
    """
    _check(request)
    layout = Layout(url, storage)
    with plain_errors(url):
        manifest = read_manifest(layout)
        if manifest is None:
            raise UserError(
                f"{shown(url)} holds no labels of moderay: it has no _moderay/manifest-N.json"
            )
        state = list_state(layout)
        policy = chosen_policy(manifest, request.policy)
        markers = published_markers(layout, state)
        threshold = manifest.policies[policy].threshold
        counts = _bins(markers.values(), policy)
        strata = strata_of(counts, threshold)
        reviews = request.reviews or _reviews(url, counts, strata, threshold, request.width)
        return _kept(layout, manifest, state, policy, strata, request, reviews)


def _check(request: PlanRequest) -> None:
    """Raises `UserError` for what cannot be asked."""
    if (request.width is None) == (request.reviews is None):
        raise UserError("prevalence --plan takes either --width W, such as 0.02, or --reviews N")
    if request.width is not None and not 0 < request.width < 1:
        raise UserError(f"--width {request.width:g}: a share above 0 and below 1, such as 0.02")
    if request.reviews is not None and not 0 < request.reviews <= MOST:
        raise UserError(f"--reviews {request.reviews:,}: a number from 1 to {MOST:,}")


def chosen_policy(manifest: Manifest, policy: str | None) -> str:
    """The policy that is meant.

    Raises:
        UserError: there is no such policy, or several of them, or no model is asked under it.
    """
    known = reviewed_policies(manifest)
    if policy is None and len(known) == 1:
        return next(iter(known))
    if policy is None:
        raise UserError(f"--policy ID is needed: the labels are of {', '.join(sorted(known))}")
    if policy not in known:
        raise UserError(f"--policy {policy}: the labels have none of this id; "
                        f"{nearest(policy, known)}")  # fmt: skip
    return policy


def _bins(markers: Sequence[ShardMarker] | Any, policy: str) -> Counts:
    """Rows by bin of P, of all shards; those without a P are as sure as can be."""
    total = np.zeros_like(histogram_counts({}))
    for marker in markers:
        total += histogram_counts(marker.histograms.get(policy, {}))
    return total


def _reviews(
    url: str, counts: Counts, strata: Strata, threshold: float, width: float | None
) -> int:
    """Reviews for an interval of this width, by what markers count."""
    assert width is not None
    if not counts.any():
        raise UserError(
            f"{shown(url)}: no P is known of its rows, so that a width cannot be planned: "
            "say --reviews N"
        )
    p = midpoints()
    numbers = strata.of(p, p >= threshold)
    sizes = np.bincount(numbers, counts, minlength=len(strata))
    filled = sizes > 0

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, values * counts, minlength=len(strata))[filled] / sizes[filled]

    rows = StratumRows(sizes[filled].astype(np.int64), mean(p), mean(uncertainty(p)))
    needed = reviews_needed(rows, width)
    if needed is None:
        raise UserError(
            f"--width {width:g} takes more than {MOST:,} reviews; {MOST:,} give about "
            f"{expected_width(rows, MOST):.2g}: ask for a wider interval, or say --reviews N"
        )
    return needed


def _kept(  # noqa: PLR0913, PLR0917  # all that decides which rows are drawn
    layout: Layout,
    manifest: Manifest,
    state: State,
    policy: str,
    strata: Strata,
    request: PlanRequest,
    reviews: int,
) -> PrevalencePlan:
    """The plan that is there already, or a new one."""
    reviewed = reviewed_policies(manifest)[policy]
    threshold = manifest.policies[policy].threshold
    files = {
        shard: name.stamp
        for shard in sorted(state.markers)
        if (name := state.published(shard)) is not None
    }
    about = [policy, reviewed.hash, threshold, strata.kept, strata.removed, reviews, request.seed]
    plan_id = digest([*about, files])
    if has_plan(layout, plan_id):
        return read_plan(layout, plan_id)
    try:
        drawn = draw(layout, list(files), DrawRequest(policy, strata, reviews, plan_id))
    except pa.ArrowException as error:
        raise UserError(
            f"{shown(layout.url)}: a label file cannot be read ({first_line(error)}): "
            "`moderay verify` says which"
        ) from error
    filled = np.flatnonzero(drawn.rows)
    if not len(filled):
        raise UserError(f"{shown(layout.url)}: no row has a verdict under {policy} yet")
    rows = StratumRows(
        drawn.rows[filled],
        drawn.probability[filled] / drawn.rows[filled],
        drawn.uncertainty[filled] / drawn.rows[filled],
    )
    dealt = allocate(rows, reviews)
    edges = [strata.edges(threshold)[number] for number in filled]
    plan = PrevalencePlan(
        id=plan_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy=policy,
        policy_hash=reviewed.hash,
        labels=dict(reviewed.labels),
        threshold=threshold,
        judged=int(drawn.rows.sum()),
        unjudged=drawn.unjudged,
        width=request.width,
        expected_width=expected_width(rows, int(dealt.sum())),
        confidence=CONFIDENCE,
        strata=tuple(
            PlannedStratum(
                removed=bool(strata.is_removed[number]),
                low=low,
                high=high,
                rows=int(rows.rows[at]),
                probability=float(rows.probability[at]),
                reviews=int(dealt[at]),
            )
            for at, (number, (low, high)) in enumerate(zip(filled, edges, strict=True))
        ),
        rows=tuple(_planned_rows(policy, drawn, filled, dealt)),
    )
    # Who else planned the same meanwhile has drawn the same rows.
    return plan if add_plan(layout, plan) else read_plan(layout, plan_id)


def _planned_rows(policy: str, drawn: Drawn, filled: Counts, dealt: Counts) -> list[PlannedRow]:
    """Drawn rows in the order of review: at any time, of each stratum about the same part."""
    places: list[tuple[float, PlannedRow]] = []
    for at, number in enumerate(filled):
        mine = drawn.candidates.filter(
            pa.array(drawn.candidates.column("stratum").to_numpy() == number)
        )
        for rank, row in enumerate(mine.slice(0, int(dealt[at])).to_pylist()):
            planned = PlannedRow(
                policy=policy,
                content_hash=row["content_hash"],
                shard=row["shard"],
                row=row["row"],
                stratum=at,
            )
            places.append(((rank + 0.5) / dealt[at], planned))
    return [planned for _, planned in sorted(places, key=lambda each: each[0])]
