"""An S3 server on loopback for the tests, `python tests/support/s3server.py PORT`: moto's, with
conditional writes that are atomic, as a store's are.
"""

import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple


class OneCreatesAtATime:
    """moto looks whether there is such an object first and writes then; of two threads at once both
    would succeed.
    """

    def __init__(self) -> None:
        self._moto, self._lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ:
            return self._moto(environ, start_response)  # type: ignore[no-any-return]
        with self._lock:
            return list(self._moto(environ, start_response))


if __name__ == "__main__":
    run_simple(
        "127.0.0.1",
        int(sys.argv[1]),
        OneCreatesAtATime(),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
