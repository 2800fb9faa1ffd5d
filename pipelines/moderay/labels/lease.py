"""One driver at a time: who may write an output."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid

from moderay.core.errors import ModerayError, TryAgainError
from moderay.core.records import RecordRefusedError
from moderay.core.storage import create, read, remove
from moderay.labels.layout import Layout
from moderay.labels.records import LeaseRecord

# A driver renews its lease this often; one that has not for LEASE_S seconds is taken for dead.
# Between the two lies what a slow store and the clocks of two machines may differ by.
RENEW_S, LEASE_S = 10.0, 60.0


class LeaseLostError(ModerayError):
    """Another driver has taken over; this one writes nothing more."""

    exit_status = 3


class Lease:
    """`lease.json`, renewed by a thread, with an epoch that grows with every driver.

    A driver that takes over first claims the next epoch by creating a file of that name, which a
    store lets only one do. Writers compare their epoch with the lease's before they publish.
    """

    def __init__(self, layout: Layout) -> None:
        """Take the lease.

        Raises:
            TryAgainError: another driver lives.
        """
        self._layout = layout
        self._stop, self._lost = threading.Event(), threading.Event()
        self.epoch = self._take()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        """The lease is held since it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it at once."""
        self._stop.set()
        self._thread.join()
        if current_epoch(self._layout) == self.epoch:
            self._write(released=True)
            remove(self._layout.fs, self._layout.private(f"epoch-{self.epoch}"))

    def assert_held(self) -> None:
        """Raises `LeaseLostError` where another driver has taken over, as of the last renewal."""
        if self._lost.is_set():
            raise LeaseLostError(
                f"{self._layout.url} was taken over by another driver; what this run saved is "
                "there for it"
            )

    def _take(self) -> int:
        held = _read(self._layout, "lease.json")
        if held is not None and not _over(held):
            raise TryAgainError(
                f"{self._layout.url} is being written by process {held.pid} on {held.host} "
                f"(renewed {time.time() - held.renewed:.0f} s ago): wait for it, or try again "
                f"{LEASE_S:.0f} s after it has ended"
            )
        first = epoch = 0 if held is None else held.epoch + 1
        while not create(
            self._layout.fs, self._layout.private(f"epoch-{epoch}"), _record(epoch).to_json()
        ):
            claim = _read(self._layout, f"epoch-{epoch}")
            if claim is None or not _over(claim):
                raise TryAgainError(
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
        lease = _record(self.epoch, released)
        self._layout.write(self._layout.private("lease.json"), lease.to_json())

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                if current_epoch(self._layout) != self.epoch:
                    self._lost.set()
                    return
                self._write()
            except RecordRefusedError:  # a driver of another version has taken over
                self._lost.set()
                return
            except OSError as error:
                # The next time comes before the lease is over; if it does not get through either,
                # another driver may take over, which publishing notices.
                logging.getLogger(__name__).warning(
                    "the lease of %s could not be renewed: %s", self._layout.url, error
                )


def current_epoch(layout: Layout) -> int | None:
    """Of the driver that took the lease last; None where none ever did."""
    held = _read(layout, "lease.json")
    return None if held is None else held.epoch


def assert_epoch(layout: Layout, epoch: int) -> None:
    """Assert that a driver still holds the lease.

    Raises:
        LeaseLostError: another driver has taken over.
    """
    if (now := current_epoch(layout)) != epoch:
        raise LeaseLostError(
            f"{layout.url} was taken over by another driver (epoch {now}, this run's is {epoch})"
        )


def _record(epoch: int, released: bool = False) -> LeaseRecord:
    """This process's; the `id` makes it like no other, as `create` needs."""
    return LeaseRecord(
        id=uuid.uuid4().hex,
        epoch=epoch,
        host=socket.gethostname(),
        pid=os.getpid(),
        renewed=time.time(),
        released=released,
    )


def _read(layout: Layout, name: str) -> LeaseRecord | None:
    """The lease, or the claim on an epoch."""
    path = layout.private(name)
    data = read(layout.fs, path)
    return None if data is None else LeaseRecord.from_json(data, path)


def _over(held: LeaseRecord) -> bool:
    """Released, not renewed for long, or its process on this machine is gone."""
    if held.released or time.time() - held.renewed > LEASE_S:
        return True
    return held.host == socket.gethostname() and not _alive(held.pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
