"""What a person is told of an endpoint that refuses, and what an endpoint says of an error."""

from __future__ import annotations

import json
from collections.abc import Sequence

from moderay.core.errors import UserError, first_line, nearest
from moderay.engines.remote.access import KEY, is_private

# Characters that are kept of what an endpoint says.
MESSAGE_CHARS = 300


def cause(error: BaseException) -> str:
    """How a request failed without an answer."""
    return first_line(error)[:MESSAGE_CHARS]


def error_message(data: bytes, key: str | None) -> str:
    """What an endpoint says of an error, without the key that it may have read back.

    Returns:
        `: ` and the message, or nothing where there is none.
    """
    try:
        error = json.loads(data)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        text = data[:MESSAGE_CHARS].decode("utf-8", "replace")
    hidden = text.replace(key, "***") if key else text
    line = " ".join(hidden.split())[:MESSAGE_CHARS]
    return f": {line}" if line else ""


def key_refused(endpoint: str, has_key: bool, status: int) -> UserError:
    """The endpoint wants a key, or another one; `has_key`: one was sent."""
    if has_key:
        return UserError(
            f"the endpoint {endpoint} refuses the key in {KEY} (HTTP status {status}): set another "
            "in the environment of the cluster's processes"
        )
    if not is_private(endpoint):
        return UserError(
            f"the endpoint {endpoint} asks for a key (HTTP status {status}), which is never sent "
            "over plain http to another machine: serve it over https"
        )
    return UserError(
        f"the endpoint {endpoint} asks for a key (HTTP status {status}): set {KEY} in the "
        "environment of the cluster's processes"
    )


def not_there(endpoint: str, name: str, models: Sequence[str], message: str) -> UserError:
    """Neither the API nor the model is found; `models`: those that the endpoint lists."""
    hint = f"; {nearest(name, models)}" if models and name not in models else ""
    return UserError(
        f"{endpoint} has no Responses API or no model {name!r} ({message}){hint} (see model: in "
        "the job)"
    )


def redirected(endpoint: str, message: str) -> UserError:
    """Redirects are not followed: the key would go along."""
    return UserError(
        f"{endpoint} answers with a redirect ({message}): name in model.endpoint where it leads to"
    )


def all_refused(endpoint: str, message: str) -> UserError:
    """The job is wrong and not the contents."""
    return UserError(f"{endpoint} refuses every request ({message}): see model: in the job")


def too_short(endpoint: str, name: str, held: int, needed: int) -> UserError:
    """The endpoint holds shorter prompts than the job's."""
    return UserError(
        f"{name} at {endpoint} holds {held:,} tokens, but policies, windows and budget need "
        f"{needed:,}: lower windows.tokens, or serve it with more"
    )
