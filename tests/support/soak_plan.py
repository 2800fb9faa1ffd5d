"""What a soak does, drawn from a seed: worlds of some episodes, each with changes and faults.

The same seed draws the same plan; when within a run a fault hits is up to the machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

EPISODES = 6
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
CHANGES = (
    *("new", "rewritten", "rotated", "appended", "renamed", "copied", "deleted", "restored"),
    "swapped",
)
# What is done to drivers, to Ray below them, and to the disk. `node` is the raylet of one of two
# nodes that drivers share, `raylet` that of a Ray of a driver's own.
FAULTS = ("driver", "stop", "actor", "worker", "node", "raylet", "rewrite", "full")
# What is done to an output between two runs, as a power cut or a hand does.
DAMAGES = ("label gone", "label cut", "label empty", "unit empty", "marker empty", "beat ahead")
STORAGE = ("slow_down", "error", "reset", "lost", "cut", "slow")


@dataclass(frozen=True)
class Change:
    """Of the input. `which`, in [0, 1), chooses a file, `seed` all else."""

    kind: str
    which: float
    seed: int


@dataclass(frozen=True)
class Fault:
    """Attributes:
    kind: One of FAULTS.
    after_s: Seconds after the drivers have begun.
    which: In [0, 1), chooses the driver or process, and how long it takes.
    change: What a `rewrite` does.
    """

    kind: str
    after_s: float
    which: float
    change: Change


@dataclass(frozen=True)
class DriverPlan:
    """Attributes:
    part: Of the output, as `--part` takes it.
    clock: Seconds by which its clock is off.
    write: At which of its files that only one driver may create it gets `signal`; 0: at none.
    signal: 9 or 19.
    after: Whether right after that file is written.
    """

    part: str | None
    clock: float = 0.0
    write: int = 0
    signal: int = 9
    after: bool = False


@dataclass(frozen=True)
class Episode:
    """Attributes:
    changes: Of the input, before the drivers start.
    drivers: One, or two at once.
    own_ray: Whether each has a Ray of its own.
    faults: While they work, in order.
    rate: Share of calls to a store that fail.
    kinds: In which ways.
    late: Seconds for which a new object is in no listing.
    damage: Then, of the output; one of DAMAGES, or empty.
    which: Chooses what is damaged.
    repair: Whether `verify --repair` comes before the run that makes all well.
    prune: Whether that run removes labels of what is gone.
    """

    changes: tuple[Change, ...]
    drivers: tuple[DriverPlan, ...]
    own_ray: bool
    faults: tuple[Fault, ...]
    rate: float
    kinds: tuple[str, ...]
    late: float
    damage: str
    which: float
    repair: bool
    prune: bool


@dataclass(frozen=True)
class WorldPlan:
    """Attributes:
    number: From 0, of the seed.
    suffix: Of its input files.
    files: How many there are at first.
    input_on_store: Whether the input lies on a store.
    output_on_store: The same of the output.
    carried: Whether the contents stand beside their labels.
    engines: Of each driver.
    episodes: One after the other.
    """

    number: int
    suffix: str
    files: int
    input_on_store: bool
    output_on_store: bool
    carried: bool
    engines: int
    episodes: tuple[Episode, ...]

    @property
    def answers(self) -> int:
        """Of the engine for a row: in every second world P comes with the answer, in the others by
        a second one.
        """
        return 1 if self.number % 2 else 2


def world_plan(seed: int, number: int, faults: tuple[str, ...] = FAULTS) -> WorldPlan:
    """The same one each time."""
    rng = random.Random(f"{seed}/{number}")
    input_on_store, output_on_store = rng.choice(
        [(False, False), (False, False), (False, True), (True, True)]
    )
    on_store = input_on_store or output_on_store
    usable = [kind for kind in faults if kind != "full" or not output_on_store]
    return WorldPlan(
        number,
        rng.choice(SUFFIXES),
        rng.randint(4, 8),
        input_on_store,
        output_on_store,
        rng.random() < 0.7,
        rng.randint(1, 2),
        tuple(_episode(rng, usable, on_store, count == 0) for count in range(EPISODES)),
    )


def _episode(rng: random.Random, usable: list[str], on_store: bool, is_first: bool) -> Episode:
    drivers = _drivers(rng)
    faults = sorted(
        (_fault(rng, rng.choice(usable)) for _ in range(rng.choice((0, 1, 2, 2, 3, 3)))),
        key=lambda fault: fault.after_s,
    )
    fails = on_store and rng.random() < 0.7
    return Episode(
        changes=() if is_first else tuple(_change(rng) for _ in range(rng.randint(1, 4))),
        drivers=drivers,
        own_ray=any(fault.kind == "raylet" for fault in faults),
        faults=tuple(faults),
        rate=rng.choice((0.03, 0.1, 0.2)) if fails else 0.0,
        kinds=tuple(rng.sample(STORAGE, rng.randint(1, len(STORAGE)))),
        late=rng.uniform(0.5, 3.0) if fails and rng.random() < 0.3 else 0.0,
        damage=rng.choice(DAMAGES) if rng.random() < 0.3 else "",
        which=rng.random(),
        repair=rng.random() < 0.3,
        prune=rng.random() < 0.4,
    )


def _drivers(rng: random.Random) -> tuple[DriverPlan, ...]:
    parts: tuple[str | None, ...] = rng.choice(
        [(None,), (None,), (None,), ("1/2", "2/2"), ("1/3", "3/3"), ("2/2", None), (None, None)]
    )
    return tuple(_driver(rng, part) for part in parts)


def _driver(rng: random.Random, part: str | None) -> DriverPlan:
    clock = rng.choice((-3600.0, 3600.0)) if rng.random() < 0.2 else 0.0
    # Its claim, the manifest as it begins, and the one as it ends.
    write = rng.randint(1, 3) if rng.random() < 0.15 else 0
    return DriverPlan(part, clock, write, rng.choice((9, 19)), rng.random() < 0.5)


def _fault(rng: random.Random, kind: str) -> Fault:
    return Fault(kind, rng.uniform(0.0, 6.0), rng.random(), _change(rng))


def _change(rng: random.Random) -> Change:
    return Change(rng.choice(CHANGES), rng.random(), rng.randrange(2**31))
