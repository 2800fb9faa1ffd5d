"""The dials of a run, as Ray metrics.

Each node's metrics agent exports those of its processes in Prometheus form, with `ray_` before
their names. Labels are of bounded sets (policies, their labels, judges, statuses), never of shards
or contents. Ray adds the worker and its node, so that every figure is to be summed over them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
from ray.util import metrics

from moderay.core.verdicts import trace
from moderay.engines.usage import Usage

# Seconds between two looks at an engine. Ray's workers report every ten.
TELL_S = 2.0

_rows = metrics.Counter("moderay_rows_total", "Rows saved, each under all policies.")
_verdicts = metrics.Counter(
    "moderay_verdicts_total",
    "Verdicts of this run, those taken from before apart.",
    ("policy", "label", "judge", "status"),
)
_reused = metrics.Counter("moderay_reused_verdicts_total", "Verdicts taken from before.")
_shards = metrics.Counter(
    "moderay_shards_total", "Shards that were published, or failed.", ("outcome",)
)
_rows_left = metrics.Gauge(
    "moderay_rows_left",
    "Rows that the run which is on has still to judge, before any selection; 0 after it.",
)
_requests = metrics.Counter("moderay_requests_total", "Requests that engines answered.")
_prompt = metrics.Counter(
    "moderay_prompt_tokens_total",
    "Prompt tokens: computed, or found in the prefix cache.",
    ("source",),
)
_output = metrics.Counter("moderay_output_tokens_total", "Tokens that engines generated.")
_starts = metrics.Counter(
    "moderay_engine_starts_total", "Engines started, those in place of dead ones included."
)
_deaths = metrics.Counter("moderay_engine_deaths_total", "Engines that died in a living actor.")
_engine = metrics.Counter(
    "moderay_engine_seconds_total",
    "Seconds of engine actors: starting an engine, idle (nothing asked of it), or working.",
    ("state",),
)
_seats = metrics.Counter(
    "moderay_engine_seat_seconds_total",
    "Seconds of the requests that engines can work on at once: taken, or free.",
    ("state",),
)

# Where the figures of `engines.usage.Usage` go, and what one of them is worth.
_FIGURES: Mapping[str, tuple[metrics.Counter, dict[str, str], float]] = {
    "requests": (_requests, {}, 1),
    "computed_tokens": (_prompt, {"source": "computed"}, 1),
    "cached_tokens": (_prompt, {"source": "cached"}, 1),
    "output_tokens": (_output, {}, 1),
    "engine_starts": (_starts, {}, 1),
    "engine_deaths": (_deaths, {}, 1),
    **{
        f"engine_{state}_ms": (_engine, {"state": state}, 1e-3)
        for state in ("starting", "idle", "working")
    },
    **{f"seats_{state}_ms": (_seats, {"state": state}, 1e-3) for state in ("taken", "free")},
}


def saved(rows: int, decisions: Mapping[str, pa.StructArray], reused: int) -> None:
    """A unit is saved.

    Args:
        rows: Of the unit.
        decisions: Of this run, by policy id.
        reused: Verdicts taken from before.
    """
    _add(_rows, rows)
    _add(_reused, reused)
    for policy, decision in decisions.items():
        kinds = pa.table(
            {
                "label": decision.field("label"),
                "judge": trace(decision, "decided_by"),
                "status": decision.field("status"),
            }
        )
        for kind in kinds.group_by(kinds.column_names).aggregate([([], "count_all")]).to_pylist():
            count = kind.pop("count_all")
            _add(
                _verdicts,
                count,
                {"policy": policy, **{name: value or "" for name, value in kind.items()}},
            )


def shard(outcome: str) -> None:
    """A shard is `published`, or has `failed`."""
    _shards.inc(1, {"outcome": outcome})


def rows_left(rows: int) -> None:
    """So many rows are still to be judged."""
    _rows_left.set(rows)


def tell(usage: Usage) -> None:
    """Export the figures of an engine as long as its process lives.

    From a thread: an engine that has nothing to do ends no unit that could do it.
    """
    threading.Thread(target=_tell, args=(usage,), name="dials", daemon=True).start()


def _tell(usage: Usage) -> None:
    exported = Counter[str]()
    while True:
        time.sleep(TELL_S)
        now = usage.figures()
        now["computed_tokens"] = now.pop("prompt_tokens", 0) - now["cached_tokens"]
        for name, more in (now - exported).items():
            metric, tags, worth = _FIGURES[name]
            metric.inc(more * worth, tags)
        exported = now


def _add(metric: metrics.Counter, count: int, tags: Mapping[str, str] | None = None) -> None:
    if count:  # Ray takes nothing else for a step of a counter
        metric.inc(count, dict(tags or {}))
