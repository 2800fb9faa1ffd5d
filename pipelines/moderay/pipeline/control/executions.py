"""Executions of Ray Data's streams, each known from its first moment.

Ray Data itself says which executor runs a stream only once its first block has come: one that
hangs before that could not be ended.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from ray.data import Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback

# Of this process, by the id of the stream's execution.
_EXECUTORS: WeakValueDictionary[str, Any] = WeakValueDictionary()


class _Begun(ExecutionCallback):  # type: ignore[misc]
    def before_execution_starts(self, executor: Any) -> None:
        _EXECUTORS[executor._dataset_id] = executor


def noted(stream: Dataset) -> Dataset:
    """The same stream, which `end` can end from the moment on at which it begins."""
    stream.context.custom_execution_callback_classes.append(_Begun)
    return stream


def end(stream: Dataset) -> None:
    """End a stream from which nothing comes: else its actors live on, and what hangs in them."""
    if (executor := _EXECUTORS.get(stream.get_dataset_id())) is not None:
        executor.shutdown(force=True)
