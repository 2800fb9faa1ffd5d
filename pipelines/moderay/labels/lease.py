"""Who may write which part of an output: one driver a slot, and as many drivers as there are parts.

A driver claims slots with a file `leases/<run>.json`, which a store lets only one create under a
number, and it may write as long as that file is there. It renews the claim by writing
`leases/<run>.beat`. Who finds a claim that was not renewed for `LEASE_S` removes it: a driver that
slept so long has lost, and sees it when it wakes. Of two claims on a slot the one with the lower
number counts. The age of a claim is told by the store's own clock, since those of two machines may
differ by more than that.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from moderay.core.errors import ModerayError, TryAgainError, UserError
from moderay.core.records import RecordRefusedError
from moderay.core.storage import files_below, is_local, modified, read, remove
from moderay.labels.layout import SLOTS, Layout
from moderay.labels.manifest_store import read_manifest
from moderay.labels.records import LeaseRecord

# A driver renews its lease this often; one that has not for LEASE_S seconds is taken for dead.
# Between the two lies how long a slow store may take.
RENEW_S, LEASE_S = 10.0, 60.0
# A file on its way that nobody has written for so long is never finished.
ABANDONED_S = 3600.0

# (i, n): the slots that are i modulo n.
Part: TypeAlias = tuple[int, int]
WHOLE: Part = (0, 1)

_CLAIM = re.compile(r"(\d+)\.json")


class LeaseLostError(ModerayError):
    """Another driver has taken over; this one writes nothing more."""

    exit_status = 3


class HeldError(TryAgainError):
    """Other drivers hold all that this one wants to write."""


class Lease:
    """A claim on slots of an output, renewed by a thread.

    Attributes:
        run: Its number, which grows with every driver.
        slots: Those that it holds.
        others: The claims of other drivers that live, by run.
    """

    def __init__(self, layout: Layout, part: Part = WHOLE, least: int = 0) -> None:
        """Take the lease.

        Args:
            layout: of the output.
            part: of its slots.
            least: the run's number at least: higher than any that left something here.

        Raises:
            HeldError: other drivers that live hold all of these slots.
            UserError: the store lets two drivers hold one slot, and a part was wanted.
        """
        self._layout = layout
        self._stop, self._lost = threading.Event(), threading.Event()
        self.run = self._claim(part, least)
        try:
            self.others = self._living()
            self.slots = slots_of(part) - slots_held(self.others.values())
            if not self.slots:
                raise self._refused()
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        """The lease is held since it was made."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Let others have it at once.

        Raises:
            LeaseLostError: it was lost, which explains more than the error that came of it.
        """
        self._stop.set()
        self._thread.join()
        is_lost = isinstance(error, UserError | OSError) and not is_held(self._layout, self.run)
        self._release()
        if is_lost:
            raise _lost(self._layout, self.run) from error

    def assert_alone(self) -> None:
        """Raises `HeldError` where another driver holds some slots."""
        if self.others:
            raise self._refused()

    def assert_held(self) -> None:
        """Raises `LeaseLostError` where another driver has taken over, as of the last renewal."""
        if self._lost.is_set():
            raise _lost(self._layout, self.run)

    def living(self) -> set[int]:
        """Other runs whose drivers live, by the store's clock.

        Raises:
            RecordRefusedError: a claim is of another version, or damaged.
        """
        now = self._beat()
        return {
            run
            for run in claims(self._layout)
            if run != self.run
            and (claim := read_claim(self._layout, run)) is not None
            and not (_is_dead(claim) or self._is_expired(run, now))
        }

    def _claim(self, part: Part, least: int) -> int:
        """Create a claim under a number that no run has had."""
        run = max([least, *[number + 1 for number in claims(self._layout)]])
        while True:
            record = _record(run, part)
            path = claim_path(self._layout, run)
            if self._layout.create(path, record.to_json()):
                _assert_exclusive(self._layout, path, record)
                # Another driver may have begun and ended under this number since it was chosen.
                # One with a higher number has not seen this claim, and so may hold the same slots.
                used = _runs_used(self._layout)
                higher = max([used, *[number + 1 for number in claims(self._layout)]])
                if higher <= run + 1 and used <= run:
                    return run
                remove(self._layout.fs, path)
                run = higher
            else:
                run += 1

    def _living(self) -> dict[int, LeaseRecord]:
        """Claims of lower numbers whose drivers live; those of the dead are removed."""
        now = self._beat()
        living = {}
        for number in claims(self._layout):
            claim = self._living_claim(number, now) if number < self.run else None
            if claim is not None:
                living[number] = claim
        return living

    def _living_claim(self, number: int, now: float) -> LeaseRecord | None:
        """A claim whose driver lives, for all that its store or this machine knows.

        Raises:
            RecordRefusedError: nobody can tell whose it is, but it may still be renewed.
        """
        try:
            claim = read_claim(self._layout, number)
        except RecordRefusedError:
            if not self._is_expired(number, now):
                raise
            claim = None
        else:
            if claim is None or not (_is_dead(claim) or self._is_expired(number, now)):
                return claim
        _remove_claim(self._layout, number)
        return None

    def _is_expired(self, run: int, now: float) -> bool:
        """Whether a claim was not renewed in time."""
        renewed = renewed_at(self._layout, run)
        if renewed is None or now - renewed > LEASE_S:
            return True
        # From the future: the store's clock was set back. Only whether it is renewed tells.
        return renewed - now > LEASE_S and not self._is_renewed(run, renewed)

    def _is_renewed(self, run: int, before: float) -> bool:
        until = time.monotonic() + LEASE_S
        while time.monotonic() < until:
            time.sleep(min(RENEW_S, LEASE_S) / 2)
            self._beat()
            if renewed_at(self._layout, run) != before:
                return True
        return False

    def _refused(self) -> HeldError:
        now = self._beat()
        number, claim = next(iter(self.others.items()))
        age = max(0.0, now - (renewed_at(self._layout, number) or now))
        return HeldError(
            f"{self._layout.url} is being written by process {claim.pid} on {claim.host} "
            f"(renewed {age:.0f} s ago): wait for it, or try again "
            f"{LEASE_S:.0f} s after it has ended"
        )

    def _beat(self) -> float:
        """Renew the claim; the time by the store's clock."""
        path = beat_path(self._layout, self.run)
        self._layout.write(path, f"{os.getpid()}\n".encode())
        return modified(self._layout.fs, path) or time.time()

    def _release(self) -> None:
        try:
            _remove_claim(self._layout, self.run)
        except OSError as error:
            logging.getLogger(__name__).warning(
                "the lease of %s could not be given back, so that it ends in %.0f s: %s",
                self._layout.url,
                LEASE_S,
                error,
            )

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                if not is_held(self._layout, self.run):
                    self._lost.set()
                    return
                self._beat()
            except OSError as error:
                # The next time comes before the lease is over; if it does not get through either,
                # another driver may take over, which publishing notices.
                logging.getLogger(__name__).warning(
                    "the lease of %s could not be renewed: %s", self._layout.url, error
                )


def _runs_used(layout: Layout) -> int:
    """How many runs the manifest knows; none where it is broken, on which no run begins."""
    try:
        manifest = read_manifest(layout)
    except RecordRefusedError:
        return 0
    return 0 if manifest is None else len(manifest.runs)


def slots_of(part: Part) -> frozenset[int]:
    """The slots of a part."""
    number, parts = part
    return frozenset(range(number % parts, SLOTS, parts))


def part_text(part: Part) -> str:
    """A part as people write it."""
    number, parts = part
    return "all" if part == WHOLE else f"{number or parts}/{parts}"


def slots_held(living: Iterable[LeaseRecord]) -> frozenset[int]:
    """The slots that these claims hold."""
    return frozenset(slot for claim in living for slot in slots_of(claim.part))


def claims(layout: Layout) -> list[int]:
    """The runs that have claims, rising; their drivers may be dead."""
    names = (file.name for file in files_below(layout.fs, layout.private("leases")))
    return sorted(int(match[1]) for name in names if (match := _CLAIM.fullmatch(name)))


def read_claim(layout: Layout, run: int) -> LeaseRecord | None:
    """A run's claim; None where it has none any more.

    Raises:
        RecordRefusedError: it is of another version, or damaged.
    """
    path = claim_path(layout, run)
    data = read(layout.fs, path)
    return None if data is None else LeaseRecord.from_json(data, path)


def living(layout: Layout) -> set[int]:
    """The runs whose drivers live, as far as this machine and its clock know; nothing is written.

    Raises:
        RecordRefusedError: a claim is of another version, or damaged.
    """
    return {
        run
        for run in claims(layout)
        if (claim := read_claim(layout, run)) is not None
        and not _is_dead(claim)
        and time.time() - (renewed_at(layout, run) or 0.0) < LEASE_S
    }


def renewed_at(layout: Layout, run: int) -> float | None:
    """When a claim was renewed last, by the store's clock."""
    renewed = modified(layout.fs, beat_path(layout, run))
    return modified(layout.fs, claim_path(layout, run)) if renewed is None else renewed


def is_held(layout: Layout, run: int) -> bool:
    """Whether a run may still write."""
    return modified(layout.fs, claim_path(layout, run)) is not None


def assert_held(layout: Layout, run: int) -> None:
    """Assert that a driver still holds its lease.

    Raises:
        LeaseLostError: another driver has taken over.
    """
    if not is_held(layout, run):
        raise _lost(layout, run)


def is_abandoned(layout: Layout, path: str, run: int) -> bool:
    """Whether nobody has written a file for an hour, by a living run's clock: its store's."""
    written, now = modified(layout.fs, path), renewed_at(layout, run)
    return written is not None and now is not None and now - written > ABANDONED_S


def claim_path(layout: Layout, run: int) -> str:
    """Path of a run's claim."""
    return layout.private(f"leases/{run}.json")


def beat_path(layout: Layout, run: int) -> str:
    """Path of the file whose time says when a claim was renewed last."""
    return layout.private(f"leases/{run}.beat")


def _lost(layout: Layout, run: int) -> LeaseLostError:
    return LeaseLostError(
        f"{layout.url} was taken over by another driver, or removed: run {run} no longer holds its "
        "lease, which must be renewed in time; what it saved is not judged again"
    )


def _remove_claim(layout: Layout, run: int) -> None:
    """The claim first: without it, nobody looks for its beat."""
    remove(layout.fs, claim_path(layout, run))
    remove(layout.fs, beat_path(layout, run))


def _assert_exclusive(layout: Layout, path: str, record: LeaseRecord) -> None:
    """Assert that a store refuses to create what is there; some do not heed the condition.

    Raises:
        UserError: it does not, and the output is to be shared out.
    """
    if is_local(layout.fs):
        return
    other = record.model_copy(update={"id": uuid.uuid4().hex})
    if not layout.create(path, other.to_json()):
        return
    if record.part != WHOLE:
        remove(layout.fs, path)
        raise UserError(
            f"{layout.url}: this store overwrites what it was asked to create only if it is not "
            "there (If-None-Match), so that two drivers could hold one slot: run without --part, "
            "one driver at a time"
        )
    logging.getLogger(__name__).warning(
        "%s: this store does not refuse to overwrite (If-None-Match); keep to one driver at a time",
        layout.url,
    )


def _record(run: int, part: Part) -> LeaseRecord:
    """This process's; the `id` makes it like no other, as `create` needs."""
    return LeaseRecord(
        id=uuid.uuid4().hex,
        run=run,
        part=part,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
    )


def _machine() -> str:
    """Where a process's number is its own: the host, since it was booted, and its container."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    known = [boot.read_text().strip()] if boot.exists() else []
    known += [os.readlink(namespace)] if namespace.exists() else []
    return " ".join([socket.gethostname(), *known])


def _is_dead(claim: LeaseRecord) -> bool:
    """Whether a claim is of a process of this machine that has ended."""
    if claim.machine != _machine():
        return False
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False
