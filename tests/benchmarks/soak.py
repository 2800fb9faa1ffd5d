"""`make chaos`: inputs change, drivers, actors, nodes, stores and disks fail, for a stated time.

Drawn from a seed: worlds (a folder, S3, or one of each) of some episodes each. After each episode
the labels are held against a model of the truth (support/truth.py), `verify` against the output,
and what was paid against what faults may cost (support/soak_world.py). What was violated is
printed with the seed and the world that play it again: `--seed 3 --world 12`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

from support.faulty_driver import shorten_lease
from support.ray_nodes import nodes
from support.s3_running import faulty_proxy, s3_server
from support.soak_plan import WorldPlan, world_plan
from support.soak_world import Scene, Tally, ViolationError, World

# What Ray prints of nodes that die goes nowhere.
say = functools.partial(print, file=sys.__stdout__, flush=True)
# Set in the process that may mount disks, which nobody else sees.
MOUNTS = "MODERAY_SOAK_MOUNTS"
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]


def with_mounts() -> None:
    """Go on in a process that may mount disks of its own, where this user may have one."""
    if MOUNTS in os.environ:
        return
    try:
        probe = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        may = subprocess.run(probe, capture_output=True, timeout=20).returncode == 0
    except OSError:
        may = False
    os.environ[MOUNTS] = "1" if may else ""
    if may:
        os.execvp(UNSHARE[0], [*UNSHARE, sys.executable, "-m", "benchmarks.soak", *sys.argv[1:]])


@contextmanager
def scene(seed: int) -> Iterator[Scene]:
    """An S3 server, a proxy before it, and a Ray of two nodes; all end with this."""
    shorten_lease()
    with s3_server() as env, faulty_proxy(env["AWS_ENDPOINT_URL"], seed=seed) as proxy:
        # A Ray's workers, and those of drivers, have it from here.
        os.environ.update(env | {"AWS_ENDPOINT_URL": proxy.url})
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), nodes() as cluster:
            os.environ["RAY_ADDRESS"] = cluster.cluster.address
            try:
                yield Scene(cluster, proxy, env["AWS_ENDPOINT_URL"], bool(os.environ.get(MOUNTS)))
            finally:
                import ray

                ray.shutdown()


def played(plan: WorldPlan, seed: int, scene: Scene, tally: Tally, until: float) -> list[str]:
    """A world up to its end, its first violation, or a time; the violations."""
    say(f"seed {seed} world {replace(plan, episodes=())}")
    folder = Path(tempfile.mkdtemp(prefix=f"moderay-soak-{seed}-{plan.number}-"))
    world = World(plan, folder, scene, tally)
    try:
        for number, episode in enumerate(plan.episodes):
            if time.monotonic() > until:
                break
            began = time.monotonic()
            say(f"seed {seed} world {plan.number} episode {number}: {episode}")
            try:
                world.play(episode)
            except (ViolationError, AssertionError, OSError) as error:
                kept = f"{folder}-kept"
                world.keep(Path(kept))
                where = f"seed {seed}, world {plan.number}, episode {number}, kept in {kept}"
                if not isinstance(error, ViolationError):
                    say(traceback.format_exc())
                say(f"VIOLATION: {where}: {error!r}")
                return [f"{where}: {error!r}"]
            say(f"    well, in {time.monotonic() - began:.0f} s")
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)
    return []


def worlds(numbers: Iterator[int], options: argparse.Namespace) -> Iterator[WorldPlan]:
    for number in numbers:
        plan = world_plan(options.seed, number)
        yield replace(plan, episodes=plan.episodes[: options.episodes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", type=int, help="play this one alone")
    parser.add_argument("--episodes", type=int, help="of each world, so many at most")
    options = parser.parse_args()
    with_mounts()
    for ends in (signal.SIGTERM, signal.SIGINT):  # which a shell has ignored in the background
        signal.signal(ends, signal.default_int_handler)
    tally, violations = Tally(), list[str]()
    began = time.monotonic()
    until = began + 60 * options.minutes
    numbers = itertools.count() if options.world is None else iter([options.world])
    plans = worlds(numbers, options)
    plan = next(plans, None)
    try:
        while plan is not None and time.monotonic() < until:
            wrong = list[str]()
            with scene(options.seed) as ready:  # all is new after something that must not be
                while plan is not None and not wrong and time.monotonic() < until:
                    wrong = played(plan, options.seed, ready, tally, until)
                    violations += wrong
                    plan = next(plans, None)
    except KeyboardInterrupt:
        say("interrupted")
    report(tally, violations, time.monotonic() - began)
    sys.exit(bool(violations))


def report(tally: Tally, violations: list[str], seconds: float) -> None:
    say(f"{tally.episodes} episodes in {seconds / 60:.1f} minutes")
    for kind, count in sorted(tally.faults.items()):
        if count:
            say(f"  {kind}: {count:,}")
    say(f"{tally.rows:,} label rows held against the truth")
    say(
        f"{tally.answered:,} contents paid, {tally.again:,} of them again; faults may cost "
        f"{tally.bound:,}"
    )
    say(f"{len(violations)} violations")
    for violation in violations:
        say(f"  {violation}")


if __name__ == "__main__":
    main()
