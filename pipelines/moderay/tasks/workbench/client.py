"""Asking a workbench that is served on this machine."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

from moderay.core.errors import TryAgainError, UserError, first_line
from moderay.tasks.workbench.port import HOST, token_file

# Seconds without any answer.
PATIENCE_S = 3600.0


def ask(port: int, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """What the workbench answers.

    Args:
        port: Where it listens.
        path: Such as /label.
        body: What is sent; None: nothing, and it is asked by GET.

    Raises:
        UserError: Nobody listens there, or it refuses.
        TryAgainError: It could not answer.
    """
    try:
        token = token_file(port).read_text(encoding="ascii")
    except (OSError, ValueError):
        raise _nobody(port) from None
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
    try:
        connection.request(
            "GET" if body is None else "POST",
            path,
            None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {token}"},
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
    except ConnectionRefusedError:
        raise _nobody(port) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TryAgainError(f"port {port} broke off: {first_line(error)}") from None
    finally:
        connection.close()
    if response.status == 200:
        return dict(answer)
    message = answer.get("error", f"status {response.status}")
    kind = UserError if response.status < 500 else TryAgainError
    raise kind(f"port {port}: {message}")


def _nobody(port: int) -> UserError:
    return UserError(
        f"nothing of yours listens on port {port}: start moderay try POLICY --port {port} first"
    )
