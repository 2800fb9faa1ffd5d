"""How many engines a cluster hosts, and how full each is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.data import ActorPoolStrategy

from moderay.config.job import Job, Replicas, UnitSize
from moderay.core.errors import UserError
from moderay.core.ray_runtime import Resources
from moderay.engines.base import EngineSpec
from moderay.engines.from_job import engine_spec
from moderay.engines.vllm.engine import VllmSpec
from moderay.engines.vllm.gpu_profiles import model_size
from moderay.judges.build import fitted
from moderay.judges.cascade import Cascade
from moderay.pipeline.hosting import needs_gpu

# Cores of an actor, as Ray counts them: a GPU's engine needs one now and then, one on a CPU takes
# what it gets.
ENGINE_CPUS = 0.5
# Cores of a read task, which tokenises. Each is a process that holds a span, so that fewer cores
# must mean less memory.
READ_CPUS = 1.0
# Questions in the units at an engine, for each request that it works on at once. A unit keeps its
# place until its slowest row is answered: where latencies are log-normal (sigma 1), 2 leave half of
# the engine empty, 4 a third, 8 next to nothing.
QUESTIONS_PER_SEAT = 8
# Questions in the units that travel together, for each request that an engine works on at once:
# what its host admits. A message costs the driver the same, whatever is in it.
QUESTIONS_TOGETHER = 2
# Where `model.replicas` is a range: the share of the units that the engines could have in flight at
# which more of them are started. Half of the units fill an engine's seats four times over. (Ray
# Data's own 1.75 is of pools that queue twice what they work on; where no more than that is sent,
# as here, it never starts a second engine.)
MORE_ENGINES_AT = 0.5
# The share at which idle ones end.
FEWER_ENGINES_AT = 0.1


@dataclass(frozen=True)
class Engines:
    """What is hosted, and how.

    Attributes:
        spec: Of the engine.
        cascades: One for each policy.
        fewest: Actors at least, of one engine each.
        most: Actors at most.
        in_flight: Units at one of them.
        together: Units that travel together, at most.
        read_cpus: Cores of a read task.
    """

    spec: EngineSpec
    cascades: Sequence[Cascade]
    fewest: int
    most: int
    in_flight: int
    together: int
    read_cpus: float

    @property
    def messages(self) -> int:
        """At one engine, of units that travel together."""
        return self.in_flight if self.together == 1 else -(-self.in_flight // self.together) + 2

    def options(self, units: int, in_flight: int) -> dict[str, Any]:
        """For Ray Data's `map_batches`.

        Args:
            units: More actors are not started.
            in_flight: Batches at one of them.
        """
        size = {"min_size": min(self.fewest, units), "max_size": min(self.most, units)}
        pool = ActorPoolStrategy(**size, max_tasks_in_flight_per_actor=in_flight)
        return {
            "compute": pool,
            "num_cpus": ENGINE_CPUS,
            "num_gpus": self.spec.gpus,
            "max_concurrency": in_flight,
        }

    def read_ahead(self, unit: UnitSize) -> int:
        """Bytes of units that Ray Data may hold: those in flight, and one more for each engine.

        With the one that is just being read, it is two more. Units that travel together are no
        larger than one may be.
        """
        return self.most * (self.messages + 1) * unit.bytes


def hosted(
    job: Job, cascades: Sequence[Cascade], has: Resources, unit: UnitSize | None = None
) -> Engines:
    """The job's engines on a cluster, each with so many units that it never waits for one.

    Where the job does not say how many requests an engine takes, the largest profile counts, since
    the driver sees no GPU.

    Args:
        job: The job.
        cascades: One for each policy.
        has: What the cluster has.
        unit: How large units are; None is as the job says.

    Raises:
        UserError: The cluster is too small.
    """
    gpus, cpus, node_cpus = has
    spec = fitted(engine_spec(job, gpus), cascades)
    if isinstance(spec, VllmSpec) and not gpus and (size := model_size(spec.source)) is not None:
        raise UserError(f"{needs_gpu(size)}, and the Ray that it would run on has none")
    if spec.gpus > gpus:
        raise UserError(
            f"model.engine.tensor_parallel_size asks for {spec.gpus} GPUs an engine, and the "
            f"cluster has {gpus}"
        )
    questions = (unit or job.unit).most * len(cascades)
    in_flight = math.ceil(QUESTIONS_PER_SEAT * spec.max_num_seqs / questions) + 2
    together = max(1, QUESTIONS_TOGETHER * spec.max_num_seqs // questions)
    room = max(1, gpus // spec.gpus) if spec.gpus else 1
    fewest, most = _replicas(job.model.replicas, room)
    if spec.gpus and fewest > room:
        raise UserError(
            f"model.replicas asks for {fewest} engines of {spec.gpus} GPUs, but the cluster has "
            f"{gpus} GPUs"
        )
    # A task finds room on one node, beside an engine where that is small.
    read_cpus = min(READ_CPUS, node_cpus / 2)
    if (needed := fewest * ENGINE_CPUS + read_cpus) > cpus:
        raise UserError(
            f"model.replicas asks for {fewest} engines, which with reading take {needed:g} "
            f"cores, and the cluster has {cpus:g}"
        )
    return Engines(spec, cascades, fewest, most, in_flight, together, read_cpus)


def _replicas(replicas: Replicas | int | None, room: int) -> tuple[int, int]:
    """Engines at least and at most; as many as there is room for where the job does not say it."""
    if isinstance(replicas, Replicas):
        return replicas.min, replicas.max
    count = replicas or room
    return count, count


def publishing_tasks(cpus: float) -> int:
    """Shards that a cluster of so many cores publishes at once.

    Two at least, since each waits for storage most of its time, and not so many that they throttle
    it.
    """
    return max(2, min(32, int(cpus // 4)))
