"""A Ray on Spark's executors, for as long as it is used, which lets in whoever has its token.

The token is made here. It goes to the executors inside the Spark tasks that start Ray there, and
from these by the environment: it is on no command line and not in Spark's configuration, which
Spark's pages show.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any

import ray
import ray.util.spark
from ray import _raylet
from ray.util.spark.databricks_hook import DefaultDatabricksRayOnSparkStartHook
from ray.util.spark.start_hook_base import RayOnSparkStartHook
from ray.util.spark.utils import is_in_databricks_runtime

from moderay.core.errors import ModerayError, StoppedError, TryAgainError, UserError, first_line
from moderay.tasks.submit.spark_workers import RayWorkers, executor_error

# Seconds that Ray's head has to end, once it is told to.
HEAD_END_S = 30.0
# Minutes for which a worker may have nothing to do: longer than any job.
IDLE_MIN = 60.0 * 24 * 365
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Variables that would lead Ray to another cluster, or show it another token.
_OTHERS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH")

# Ray's own that tell on the terminal what goes as it should.
_CHATTY = ("ray.util.spark", "ray._private.worker")
# Warns of each worker that ends, and sets its level again and again.
_JOB_SERVER = "ray.autoscaler._private.spark.spark_job_server"

_base_hook: Any = (
    DefaultDatabricksRayOnSparkStartHook if is_in_databricks_runtime() else RayOnSparkStartHook
)


class Signals:
    """SIGTERM and Ctrl-C while a Ray is there: nothing that was started is left behind.

    Attributes:
        count: how many have come.
        raises: whether one ends at once what the main thread does, and is not just counted.
    """

    def __init__(self) -> None:
        """None has come yet."""
        self.count = 0
        self.raises = False
        self._name = ""

    def check(self) -> None:
        """Raise `StoppedError` where one has come."""
        if self.count:
            raise StoppedError(f"stopped by {self._name}: the same command goes on", 3)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Until the end, signals come here; not to PySpark, which would end Ray's workers."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.take()
        try:
            yield
        finally:
            self._set(before)

    def take(self) -> None:
        """Have them come here again: `ray.util.spark` takes SIGTERM, and ends its Ray on it."""
        self._set(dict.fromkeys(_SIGNALS, self._on_signal))

    def _set(self, handlers: Mapping[signal.Signals, Any]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.count += 1
        self._name = signal.Signals(number).name
        if self.raises:
            self.check()


class _Nowhere(io.TextIOBase):
    """Takes what the head prints; never closed, since a thread of Ray's goes on writing."""

    def write(self, text: str) -> int:
        return len(text)


class _Start:
    """What `ray.util.spark` asks of the one who starts a Ray, by way of `StartHook`."""

    def __init__(self, signals: Signals, environment: Mapping[str, str]) -> None:
        self.signals = signals
        self.environment = environment
        self.handle: Any = None

    def created(self, handle: Any) -> None:
        """Ray's head is there, and can be ended by this handle."""
        self.handle = handle
        self.signals.raises = True
        self.signals.check()


# Of the Ray that is started: a hook is given by the name of its class, and without arguments.
_start: _Start | None = None


class StartHook(_base_hook):  # type: ignore[misc]  # Ray has no types
    """What `ray.util.spark` calls as it starts a cluster."""

    def __init__(self) -> None:
        """Not of a Ray for everybody."""
        super().__init__(is_global=False)

    def custom_environment_variables(self) -> dict[str, str]:
        """Of all processes of Ray. Databricks' own needs a notebook, and is not asked."""
        assert _start is not None
        return dict(_start.environment)

    def on_ray_dashboard_created(self, port: int) -> None:
        """Nothing is shown of it."""

    def on_cluster_created(self, ray_cluster_handler: Any) -> None:
        """Keep the handle by which it is ended; nobody else is to end it when a notebook idles."""
        assert _start is not None
        _start.created(ray_cluster_handler)


@contextmanager
def ray_on_spark(workers: RayWorkers, signals: Signals) -> Iterator[dict[str, str]]:
    """A Ray on the active Spark session, and its end whatever happens.

    Args:
        workers: What Spark is asked for.
        signals: Are taken note of while it is started and ended.

    Yields:
        The environment of a process that joins it.

    Raises:
        UserError: It cannot be started there.
        TryAgainError: It could not be started, or Spark has no room for all workers.
        StoppedError: By a signal, before it was there.
    """
    global _start  # noqa: PLW0603  a hook has no other way to it
    if ray.is_initialized() or ray.util.spark.cluster_init._active_ray_cluster is not None:
        raise UserError(
            "this process is connected to a Ray: ray.shutdown(), or, where it is on Spark, "
            "ray.util.spark.shutdown_ray_cluster() ends that"
        )
    nodes = _node_environment(secrets.token_hex(32), workers)
    with _ray_environment(nodes):
        _start = _Start(signals, nodes)
        try:
            _set_up(workers, signals)
            signals.take()
            yield {**nodes, "RAY_ADDRESS": _start.handle.address}
        finally:
            signals.raises = False
            with redirect_stdout(_Nowhere()):
                _take_down(_start.handle)
            _start = None


def _node_environment(token: str, workers: RayWorkers) -> dict[str, str]:
    """Of Ray's processes."""
    # Ray would count GPUs for itself that Spark has given to nobody, or to another executor.
    unseen = {} if workers.gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
        **unseen,
    }


@contextmanager
def _ray_environment(nodes: Mapping[str, str]) -> Iterator[None]:
    """This process as one that Ray's head is started from, and lets in; afterwards as before."""
    kept = dict(os.environ)
    for variable in _OTHERS:
        os.environ.pop(variable, None)
    # The head runs `ray`: the one of this environment.
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    hook = f"{StartHook.__module__}.{StartHook.__name__}"
    os.environ |= {**nodes, "PATH": path, "RAY_ON_SPARK_START_HOOK": hook}
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    _reread()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
        _reread()


def _reread() -> None:
    """Have Ray in this process read its variables again: it does once, and remembers."""
    raylet: Any = _raylet
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _set_up(workers: RayWorkers, signals: Signals) -> None:
    """Raises `ModerayError`."""
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    logging.getLogger(_JOB_SERVER).disabled = True
    try:
        with redirect_stdout(_Nowhere()):
            ray.util.spark.setup_ray_cluster(
                max_worker_nodes=workers.count,
                num_cpus_worker_node=workers.cpus,
                num_gpus_worker_node=workers.gpus,
                num_cpus_head_node=0,
                num_gpus_head_node=0,
                head_node_options={"include_dashboard": False},
                # An executor is the session's, idle or not: to give it up makes nothing free.
                autoscale_idle_timeout_minutes=IDLE_MIN,
            )
    except StoppedError:
        raise
    except Exception as error:
        # Spark's, Py4J's and Ray's own, of no common class.
        signals.check()
        raise _not_started(error) from error
    assert _start is not None
    nodes = _start.handle.spark_job_server.query_nodes()["nodes"]
    running = sum(node["status"] == "running" for node in nodes)
    if running < workers.count:
        raise TryAgainError(
            f"Spark has room for {running} of {workers.count} workers now: ask for fewer with "
            "--workers, or try again when other jobs have ended"
        )


def _not_started(error: Exception) -> ModerayError:
    cause = error.__cause__ or error
    if isinstance(error, ValueError) or "ValueError(" in str(error):
        return UserError(f"Ray cannot be started on this Spark: {first_line(error)}")
    if type(error).__module__.startswith(("pyspark", "py4j")):
        return executor_error(error)
    if "head node failed" in str(error):
        return TryAgainError(
            "Ray's head did not come up beside Spark's driver in time: is this machine overloaded?"
        )
    return TryAgainError(f"Ray could not be started on Spark: {first_line(cause)}")


def _take_down(handle: Any) -> None:
    """End Ray's workers and its head, and wait for the head's end.

    Args:
        handle: Of `ray.util.spark`; None where it did not get as far, and has ended its head
            itself.
    """
    if handle is None:
        return
    try:
        if not handle.is_shutdown:
            handle.shutdown()
    except Exception as error:
        # Spark has gone: with it, its tasks.
        logging.getLogger(__name__).warning("Spark did not end Ray's workers: %s", error)
    ray.util.spark.cluster_init._active_ray_cluster = None
    head: subprocess.Popen[str] = handle.head_proc
    try:
        head.terminate()
        head.wait(HEAD_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
