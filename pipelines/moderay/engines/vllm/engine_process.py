"""The process of vLLM's engine, begun before it is known what the engine is asked for.

`AsyncLLM` starts it when everything is imported here, and it would import the same again: twice as
long. Here both import at the same time: what `multiprocessing` calls a fork server imports what an
engine needs, and the engine's process is a fork of it. One that is built again imports nothing.

Only for engines on a CPU: what the driver of a GPU makes of a fork is not proved.
"""

from __future__ import annotations

import functools
import glob
import importlib.util
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection, context, forkserver
from pathlib import Path
from typing import Any

# What an engine's process imports as it starts, and as it loads a model.
MODULES = [
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.gpt_oss",
]
# Beginnings of variables that are read once, by the loader or by a library: they must be in the
# environment that a process begins with. What the imports set themselves, such as KMP_INIT_AT_FORK,
# those of the server set as well.
_READ_ONCE = ("LD_PRELOAD", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "MALLOC_", "TCMALLOC_")


def begin() -> None:
    """Have the fork server import; returns at once. However often it is called, there is one."""
    _begun()


@functools.cache
def _begun() -> Mapping[str, str]:
    """The environment that the fork server begins with: what vLLM would give to the engine."""
    multiprocessing.set_forkserver_preload(MODULES)
    added = {
        "LD_PRELOAD": libraries(os.environ.get("LD_PRELOAD", "")),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1",
    }
    before = {name: os.environ.get(name) for name in added}
    os.environ.update({name: value for name, value in added.items() if value})
    try:
        forkserver.ensure_running()
        return dict(os.environ)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def libraries(preload: str) -> str:
    """LD_PRELOAD as vLLM 0.32 sets it on a CPU: torch's libgomp, and before it tcmalloc."""
    torch, vllm = (_package(name) for name in ("torch", "vllm"))
    if torch is None or vllm is None:
        return preload
    openmp = [*glob.glob(f"{torch.parent}/torch.libs/libgomp*.so*")]
    openmp += glob.glob(f"{torch}/lib/libgomp*.so*")
    if openmp and not any(name in preload for name in ("libomp", "libgomp", "libiomp")):
        preload = ":".join(filter(None, [preload, openmp[0]]))
    allocator = glob.glob(f"{vllm}/libs/libtcmalloc_minimal*.so*")
    allocator += glob.glob(f"{vllm}/libs/libtcmalloc.so*")
    if allocator and "libtcmalloc" not in preload:
        preload = ":".join(filter(None, [allocator[0], preload]))
    return preload


def _package(name: str) -> Path | None:
    """Its folder, without importing it."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


@contextmanager
def forked() -> Iterator[None]:
    """VLLM's engines that are started in here are forks of the server that `begin` has begun."""
    from vllm.v1.engine import utils  # noqa: PLC0415  late: it takes seconds

    chosen: Callable[[], Any] = utils.get_mp_context

    def mp_context() -> Any:
        own = chosen()
        return Forking() if is_alike(_begun(), os.environ) else own

    utils.get_mp_context = mp_context
    try:
        yield
    finally:
        utils.get_mp_context = chosen


def is_alike(begun: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a process that begins now would read the same once as the server has.

    Where vLLM asks for something else than was foreseen, it gets the process of its own.
    """
    names = {name for name in (*begun, *now) if name.startswith(_READ_ONCE)}
    return all(begun.get(name) == now.get(name) for name in names)


class Forking(context.ForkServerContext):
    """As vLLM uses it: processes with its arguments, in today's environment."""

    def Process(  # type: ignore[override]  # noqa: N802  (the library's name)
        self, *, target: Callable[..., None], name: str, kwargs: Mapping[str, Any]
    ) -> Any:
        """A process that runs `target`; it is not started."""
        return super().Process(
            target=_engine, name=name, args=(target, dict(os.environ)), kwargs=dict(kwargs)
        )


def _engine(target: Callable[..., None], environment: Mapping[str, str], **kwargs: Any) -> None:
    """In the engine's process, which ends when that which asks it is gone."""
    # Only what is new: the title that vLLM gives the process is written where its arguments are,
    # which are found from the variables beside them.
    new = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    os.environ.update(new)
    parent = multiprocessing.parent_process()
    assert parent is not None, "it is a process of multiprocessing"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    target(**kwargs)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
