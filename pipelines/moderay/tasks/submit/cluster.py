"""A Ray cluster by its job server, and what goes wrong on the way to it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from moderay.core.errors import TryAgainError, UserError, first_line
from moderay.core.storage import shown


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster.

    Attributes:
        address: URL of its dashboard, which is its job server too; without a user's name.
        client: Ray's client of that server.
    """

    address: str
    client: JobSubmissionClient


def connect(address: str) -> Cluster:
    """A cluster by the URL, or host and port, of its dashboard.

    Raises:
        UserError: What answers there is no cluster, or lets nobody in.
        TryAgainError: Nothing answers.
    """
    address = address.rstrip("/") if "://" in address else f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"--address {shown(address)}: the address of Ray's dashboard is wanted, such as "
            "http://HEAD:8265"
        )
    for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    name = shown(address)
    with cluster_errors(name), _without_addresses_of_others():
        try:
            return Cluster(name, JobSubmissionClient(address))
        except (json.JSONDecodeError, KeyError, requests.HTTPError, RuntimeError) as error:
            raise UserError(
                f"what answers at {name} is no Ray dashboard, whose port is 8265 as it comes: "
                f"{first_line(error)}"
            ) from None


@contextmanager
def _without_addresses_of_others() -> Iterator[None]:
    """Without the variables whose address Ray would prefer to the one that it is handed."""
    kept = {
        name: os.environ.pop(name)
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        if name in os.environ
    }
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def cluster_errors(address: str, job_id: str = "") -> Iterator[None]:
    """What goes wrong on the way to a cluster, as one sentence.

    Args:
        address: The cluster's.
        job_id: The job that the cluster is asked about.

    Raises:
        UserError: It lets nobody in, or knows no such job.
        TryAgainError: It does not answer, or fails.
    """
    try:
        yield
    except AuthenticationError as error:
        raise _authentication_error(address, error) from None
    except (ConnectionError, requests.ConnectionError, requests.Timeout):
        raise TryAgainError(
            f"no Ray cluster answers at {address}: is it running, and is this the address of its "
            "dashboard (port 8265 as it comes)?"
        ) from None
    except requests.RequestException as error:
        raise UserError(f"{address} cannot be asked: {first_line(error)}") from None
    except RuntimeError as error:
        if job_id and "status code 404" in str(error):
            raise UserError(
                f"{address} knows no job {job_id!r}; `moderay status` names those it knows"
            ) from None
        raise TryAgainError(f"{address} failed: {first_line(error)}; try again") from None


def _authentication_error(address: str, error: AuthenticationError) -> UserError:
    if "required" in first_line(error):
        return UserError(
            f"{address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH"
        )
    return UserError(
        f"{address} refuses the token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
        "~/.ray/auth_token is another cluster's"
    )
