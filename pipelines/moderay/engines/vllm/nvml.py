"""The GPUs of this machine as NVIDIA's driver has them, without torch: in milliseconds."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from moderay.engines.vllm.gpu_profiles import Gpu

LIBRARY = "libnvidia-ml.so.1"
# Devices of drivers that this library does not know, and of NVIDIA's where the library is missing.
_DEVICES = ("/dev/kfd", "/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
_NAME_BYTES = 96


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def gpus_here() -> list[Gpu] | None:
    """The GPUs that a process of this machine may use; None where that cannot be told.

    Which of several a process gets is for Ray to choose; CUDA_VISIBLE_DEVICES may leave none.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return []
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None if any(Path(device).exists() for device in _DEVICES) else []
    try:
        if library.nvmlInit_v2():
            return None
        try:
            return _listed(library)
        finally:
            library.nvmlShutdown()
    except AttributeError:  # a driver of long ago
        return None


def _listed(library: ctypes.CDLL) -> list[Gpu] | None:
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return None
    gpus = [_gpu(library, number) for number in range(count.value)]
    known = [gpu for gpu in gpus if gpu is not None]
    return known if len(known) == len(gpus) else None


def _gpu(library: ctypes.CDLL, number: int) -> Gpu | None:
    """One of them; None where the driver does not say all of it."""
    handle = ctypes.c_void_p()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    memory = _Memory()
    major = ctypes.c_int()
    minor = ctypes.c_int()
    refused = (
        library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(handle))
        or library.nvmlDeviceGetName(handle, name, ctypes.c_uint(_NAME_BYTES))
        or library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        or library.nvmlDeviceGetCudaComputeCapability(
            handle, ctypes.byref(major), ctypes.byref(minor)
        )
    )
    if refused:
        return None
    return Gpu(name.value.decode(errors="replace"), memory.total, (major.value, minor.value))
