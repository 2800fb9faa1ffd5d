"""The GPUs of this machine, as a driver made for the test has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moderay.engines.vllm import nvml
from moderay.engines.vllm.gpu_profiles import GIB, Gpu

DRIVER = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return FAILS; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) {
  *handle = (void *)(0x700000000000UL + number); return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned size) {
  strncpy(name, (unsigned long)handle % 16 ? "NVIDIA L4" : "NVIDIA T4", size); return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory *info) {
  info->total = ((unsigned long)handle % 16 ? 22UL : 14UL) << 30; return LOST;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  *major = (unsigned long)handle % 16 ? 8 : 7; *minor = 9; return 0;
}
"""
T4 = Gpu("NVIDIA T4", 14 * GIB, (7, 9))
L4 = Gpu("NVIDIA L4", 22 * GIB, (8, 9))


def driver(folder: Path, gpus: int = 2, fails: int = 0, lost: int = 0) -> str:
    """A library that takes a handle's whole pointer, as NVIDIA's does."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    (folder / "driver.c").write_text(DRIVER)
    library = folder / f"driver-{gpus}-{fails}-{lost}.so"
    defines = [f"-DGPUS={gpus}", f"-DFAILS={fails}", f"-DLOST={lost}"]
    command = ["gcc", "-shared", "-fPIC", *defines, "-o", str(library), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return str(library)


def test_gpus_of_a_driver_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvml, "LIBRARY", driver(tmp_path))
    assert nvml.gpus_here() == [T4, L4]
    monkeypatch.setattr(nvml, "LIBRARY", driver(tmp_path, gpus=0))
    assert nvml.gpus_here() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(nvml, "LIBRARY", driver(tmp_path))
    assert nvml.gpus_here() == []


@pytest.mark.parametrize(("fails", "lost"), [(9, 0), (0, 15)])
def test_driver_that_fails_says_nothing(
    fails: int, lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvml, "LIBRARY", driver(tmp_path, fails=fails, lost=lost))
    assert nvml.gpus_here() is None


def test_machine_without_a_driver_has_none_unless_there_are_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvml, "LIBRARY", str(tmp_path / "none.so"))
    monkeypatch.setattr(nvml, "_DEVICES", (str(tmp_path / "none"),))
    assert nvml.gpus_here() == []
    monkeypatch.setattr(nvml, "_DEVICES", (str(tmp_path),))
    assert nvml.gpus_here() is None
