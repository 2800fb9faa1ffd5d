"""The labels are the state: where every file of an output lies, what is there already, and who may
write.

There is no database. Listing the output tells what is done; a unit's name is its row range, so that
saved ranges are kept and only the gaps are cut again, whatever the unit size is now.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moderay.core.errors import ModerayError, TryAgain
from moderay.core.hashing import digest
from moderay.core.storage import (
    create,
    filesystem,
    get,
    is_local,
    names_below,
    patiently,
    put_bytes,
    read,
    remove,
)
from moderay.corpus.ranges import Range

if TYPE_CHECKING:
    from moderay.corpus.shard import Shard


# A driver renews its lease this often; one that has not for LEASE_S seconds is taken for dead.
# Between the two lies what a slow store and the clocks of two machines may differ by.
RENEW_S, LEASE_S = 10.0, 60.0


@dataclass(frozen=True)
class Layout:
    """Paths of one output; picklable, workers have it too."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fs(self) -> Any:
        return filesystem(self.url, self.options)[0]

    @property
    def root(self) -> str:
        return filesystem(self.url, self.options)[1].rstrip("/")

    def label(self, shard: str) -> str:
        return f"{self.root}/{shard}"

    def private(self, name: str) -> str:
        return f"{self.root}/_moderay/{name}"

    def unit(self, shard: str, rows: Range, key: str) -> str:
        return self.private(f"units/{shard}/{rows[0]}-{rows[1]}-{key}.arrow")

    def marker(self, shard: str, key: str, decision: str) -> str:
        return self.private(f"shards/{shard}-{key}-{decision}.json")

    def write(self, path: str, data: bytes) -> None:
        put_bytes(self.fs, path, data, self.private("tmp"))


@dataclass(frozen=True)
class State:
    """What an output holds. `units`: saved ranges by shard and key, in order, overlaps included.
    `markers`: (key, decision) by published shard.
    """

    units: Mapping[str, Mapping[str, tuple[Range, ...]]]
    markers: Mapping[str, tuple[tuple[str, str], ...]]


def list_state(layout: Layout) -> State:
    """Two listings; the cost grows with files, never with rows."""
    units: dict[str, dict[str, list[Range]]] = {}
    markers: dict[str, list[tuple[str, str]]] = {}
    for name in names_below(layout.fs, layout.private("units")):
        if match := _UNIT.fullmatch(name):
            units.setdefault(match[1], {}).setdefault(match[4], []).append(
                (int(match[2]), int(match[3]))
            )
    for name in names_below(layout.fs, layout.private("shards")):
        if match := _MARKER.fullmatch(name):
            markers.setdefault(match[1], []).append((match[2], match[3]))
    ordered = {
        shard: {key: tuple(sorted(ranges)) for key, ranges in keys.items()}
        for shard, keys in units.items()
    }
    return State(ordered, {shard: tuple(found) for shard, found in markers.items()})


_UNIT = re.compile(r"(.+)/(\d+)-(\d+)-([0-9a-f]{16})\.arrow")
_MARKER = re.compile(r"(.+)-([0-9a-f]{16})-([0-9a-f]{16})\.json")


_MANIFEST = "/_moderay/manifest.json"


def outputs(url: str, options: Mapping[str, Any]) -> list[str]:
    """The outputs that a glob such as labels/date=* names, in order."""
    fs, path = filesystem(url, options)
    found = sorted(
        name.removesuffix(_MANIFEST)
        for name in patiently(fs, lambda: fs.glob(path.rstrip("/") + _MANIFEST))
    )
    return found if is_local(fs) else [fs.unstrip_protocol(name) for name in found]


def read_manifest(layout: Layout) -> dict[str, Any] | None:
    data = read(layout.fs, layout.private("manifest.json"))
    return None if data is None else json.loads(data)


def read_markers(layout: Layout, paths: Sequence[str]) -> list[dict[str, Any]]:
    """What published shards say of themselves."""
    fs = layout.fs
    with ThreadPoolExecutor(16) as pool:
        return [json.loads(data) for data in pool.map(lambda path: get(fs, path), paths)]


def shard_key(shard: Shard, cascade: str, selection: str) -> str:
    return digest({"shard": shard.identity, "cascade": cascade, "selection": selection})


class LeaseLost(ModerayError):
    """Another driver has taken over; this one writes nothing more."""

    exit_status = 3


class Lease:
    """One driver at a time: `lease.json`, renewed by a thread, with an epoch that grows with every
    driver.

    A driver that takes over first claims the next epoch by creating a file of that name, which a
    store lets only one do. Writers compare their epoch with the lease's before they publish. Raises
    `TryAgain` where another driver lives.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stop, self._lost = threading.Event(), threading.Event()
        self.epoch = self._take()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if current_epoch(self._layout) == self.epoch:
            self._write(released=True)
            remove(self._layout.fs, self._layout.private(f"epoch-{self.epoch}"))

    def assert_held(self) -> None:
        """Raises `LeaseLost` where another driver has taken over, as of the last renewal."""
        if self._lost.is_set():
            raise LeaseLost(
                f"{self._layout.url} was taken over by another driver; what this run saved is "
                "there for it"
            )

    def _take(self) -> int:
        held = _lease(self._layout)
        if held is not None and not _over(held):
            raise TryAgain(
                f"{self._layout.url} is being written by process {held['pid']} on {held['host']} "
                "(renewed "
                f"{time.time() - held['renewed']:.0f} s ago): wait for it, or try again "
                f"{LEASE_S:.0f} s after it has ended"
            )
        first = epoch = 0 if held is None else held["epoch"] + 1
        while not create(
            self._layout.fs, self._layout.private(f"epoch-{epoch}"), self._holder(epoch)
        ):
            claim = read(self._layout.fs, self._layout.private(f"epoch-{epoch}"))
            if claim is None or not _over(json.loads(claim)):
                raise TryAgain(
                    f"{self._layout.url} has just been taken by another driver: try again "
                    f"{LEASE_S:.0f} s after it has ended"
                )
            epoch += 1  # its driver died after the claim
        self.epoch = epoch
        self._write()
        for number in range(max(0, first - 1), epoch):
            remove(self._layout.fs, self._layout.private(f"epoch-{number}"))
        return epoch

    def _write(self, released: bool = False) -> None:
        self._layout.write(self._layout.private("lease.json"), self._holder(self.epoch, released))

    def _holder(self, epoch: int, released: bool = False) -> bytes:
        # `id` makes it like no other's, as `create` asks.
        holder = {
            "id": uuid.uuid4().hex,
            "epoch": epoch,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "renewed": time.time(),
            "released": released,
        }
        return json.dumps(holder).encode()

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                if current_epoch(self._layout) != self.epoch:
                    self._lost.set()
                    return
                self._write()
            except OSError as error:
                # The next time comes before the lease is over; if it does not get through either,
                # another driver may take over, which publishing notices.
                logging.getLogger(__name__).warning(
                    "the lease of %s could not be renewed: %s", self._layout.url, error
                )


def current_epoch(layout: Layout) -> int | None:
    held = _lease(layout)
    return None if held is None else int(held["epoch"])


def assert_epoch(layout: Layout, epoch: int) -> None:
    """Raises `LeaseLost` where another driver has taken over."""
    if (now := current_epoch(layout)) != epoch:
        raise LeaseLost(
            f"{layout.url} was taken over by another driver (epoch {now}, this run's is {epoch})"
        )


def _lease(layout: Layout) -> dict[str, Any] | None:
    data = read(layout.fs, layout.private("lease.json"))
    return None if data is None else json.loads(data)


def _over(held: Mapping[str, Any]) -> bool:
    """Released, not renewed for long, or its process on this machine is gone."""
    if held["released"] or time.time() - held["renewed"] > LEASE_S:
        return True
    return bool(held["host"] == socket.gethostname() and not _alive(held["pid"]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
