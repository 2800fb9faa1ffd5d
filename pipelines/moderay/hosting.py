"""How many engines a cluster hosts, and how full each is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.data import ActorPoolStrategy

from moderay.check import engine_and_judges
from moderay.engines import EngineSpec
from moderay.errors import UserError
from moderay.job import Job, Replicas, UnitSize
from moderay.judges.reason import Reason
from moderay.policy import Policy

# Cores of an actor and of a read task, as Ray counts them: a GPU's engine needs one now and then, one on a CPU takes what it gets.
ENGINE_CPUS, READ_CPUS = 0.5, 0.5


@dataclass(frozen=True)
class Engines:
    """What is hosted, and how: `fewest` to `most` actors of one engine each, `in_flight` units at one of them."""

    spec: EngineSpec
    judges: Sequence[Reason]
    fewest: int
    most: int
    in_flight: int

    def options(self, units: int) -> dict[str, Any]:
        """For `map_batches`; not more actors than there are units."""
        size = {"min_size": min(self.fewest, units), "max_size": min(self.most, units)}
        pool = ActorPoolStrategy(**size, max_tasks_in_flight_per_actor=self.in_flight)
        return {"compute": pool, "num_cpus": ENGINE_CPUS, "num_gpus": self.spec.gpus, "max_concurrency": self.in_flight}

    def read_ahead(self, unit: UnitSize) -> int:
        """Bytes that may be read and not yet judged: the units in flight, and two more for each engine."""
        return self.most * (self.in_flight + 2) * unit.bytes


def hosted(job: Job, policies: Sequence[Policy], gpus: int, cpus: float) -> Engines:
    """The job's engines on a cluster of so many GPUs and cores. Requests of at least twice `max_num_seqs` are in flight at
    each, and two units at least, so that no engine drains between two units. Raises `UserError` where the cluster is too
    small."""
    spec, judges = engine_and_judges(job, policies, gpus)
    in_flight = max(2, math.ceil(2 * spec.max_num_seqs / (job.unit.rows * len(policies))) + 1)
    there = max(1, gpus // spec.gpus) if spec.gpus else 1
    wanted = job.model.replicas
    fewest, most = (wanted.min, wanted.max) if isinstance(wanted, Replicas) else (wanted, wanted) if wanted else (there, there)
    if spec.gpus and fewest > there:
        raise UserError(f"model.replicas asks for {fewest} engines of {spec.gpus} GPUs, but the cluster has {gpus} GPUs")
    if fewest * ENGINE_CPUS + READ_CPUS > cpus:
        raise UserError(
            f"model.replicas asks for {fewest} engines, which with reading take {fewest * ENGINE_CPUS + READ_CPUS:g} cores, and the cluster has {cpus:g}"
        )
    return Engines(spec, judges, fewest, most, in_flight)
