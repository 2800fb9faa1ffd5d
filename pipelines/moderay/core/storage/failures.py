"""What a failing storage means for the person who runs the job."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from moderay.core.errors import (
    ModerayError,
    NoRoomError,
    TryAgainError,
    UserError,
    first_line,
)
from moderay.core.storage.disks import exhausted
from moderay.core.storage.opened import ChangedError
from moderay.core.storage.retries import is_full, is_passing
from moderay.core.storage.urls import shown

# botocore's, by name: it need not be installed.
_REFUSALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "ClientError",
    "TokenRetrievalError",
)


_OPTION = re.compile(r"(?:unexpected keyword|multiple values for keyword) argument '(\w+)'")


@contextmanager
def plain_errors(url: str) -> Iterator[None]:
    """Storage errors of the kinds a person can mend, as one sentence without secrets.

    Raises:
        UserError: For credentials, access, names, and limits that somebody must raise.
        NoRoomError: For a disk, a quota or a store that is full.
        TryAgainError: For a store that does not answer, and a file that changed as it was read.
    """
    url = shown(url)
    try:
        yield
    except ModerayError:
        raise
    except PermissionError as error:
        raise UserError(
            f"{url}: access denied ({first_line(error)}); check the credentials and what they "
            "may do"
        ) from None
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such bucket or folder ({first_line(error)})") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{url}: a file is where a folder must be, or a folder where a file must be "
            f"({first_line(error)}): move it away, or name another path"
        ) from None
    except ChangedError as error:
        raise TryAgainError(f"{url} {error}") from None
    except TypeError as error:
        # Of the store's library, which has been handed what `storage:` says.
        if (option := _OPTION.search(str(error))) is None:
            raise
        raise UserError(
            f"{url}: the store's library does not take the option {option[1]!r}, or has it from "
            "the environment already: see storage: in the job"
        ) from None
    except Exception as error:
        if (limit := machine_fault(url, error)) is not None:
            raise limit from None
        if isinstance(error, OSError) or is_passing(error):
            raise TryAgainError(
                f"{url}: the storage does not answer ({first_line(error)}); try again"
            ) from None
        if (refused := no_credentials(url, error)) is not None:
            raise refused from None
        raise


def machine_fault(url: str, error: Exception) -> ModerayError | None:
    """What to say where a machine or a store has no room, or a limit is met; else None.

    Such an error says nothing about the file that was read or written.
    """
    if is_full(error):
        return NoRoomError(
            f"{shown(url)}: the store is full ({first_line(error)}); make room there: what is "
            "complete is saved, and the same command goes on"
        )
    return exhausted(shown(url), error)


def no_credentials(url: str, error: Exception) -> UserError | None:
    """What to say where a store was asked without credentials, or with wrong ones; else None."""
    if type(error).__name__ not in _REFUSALS:
        return None
    where = (
        f"on {os.uname().nodename}, set the store's usual environment variables, such as "
        "AWS_ACCESS_KEY_ID"
    )
    return UserError(f"{shown(url)}: {first_line(error)}; {where}")
