"""The engine's process is a fork of a server that has imported what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from moderay.engines.base import WITH_THE_ANSWER
from moderay.engines.vllm import engine_process

# Of a process of its own: a fork server lasts as long as the process that has begun it.
BEGUN = """
import os, sys, time
from moderay.engines.vllm import engine_process

def engine(said):
    with open(said, "w") as file:
        print(os.getpid(), os.environ["SET_LATE"], "fractions" in sys.modules, file=file)
    os.rename(said, said + ".whole")
    time.sleep(600)

if __name__ == "__main__":
    engine_process.MODULES = ["fractions"]
    engine_process.begin()
    os.environ["SET_LATE"] = "yes"
    process = engine_process.Forking().Process(
        target=engine, name="EngineCore", kwargs={"said": sys.argv[1]}
    )
    process.start()
    assert "fractions" not in sys.modules
    print("begun", flush=True)
    sys.stdin.read()
    os._exit(0)
"""


def test_engine_has_what_the_server_imported_and_ends_with_who_asks_it(tmp_path: Path) -> None:
    script, said = tmp_path / "begun.py", tmp_path / "said"
    script.write_text(BEGUN)
    asking = subprocess.Popen(
        [sys.executable, script, said], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    below: list[psutil.Process] = []
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"begun\n"
        below = psutil.Process(asking.pid).children(recursive=True)
        whole = tmp_path / "said.whole"
        while not whole.exists():
            assert asking.poll() is None
        number, late, imported = whole.read_text().split()
        assert (late, imported) == ("yes", "True")
        below = psutil.Process(asking.pid).children(recursive=True)
        assert int(number) in [process.pid for process in below]
    finally:
        asking.kill()
        asking.communicate()
    assert psutil.wait_procs(below, timeout=60)[1] == []


# Prints the command line of the process that the engine's is a child of, and where P comes from.
BUILT = """
import asyncio, os, sys
import psutil
from moderay.engines.vllm.engine import VllmSpec

async def main():
    engine = await VllmSpec("tiny", dtype="float32").build()
    below = psutil.Process().children(recursive=True)
    cores = [process for process in below if "EngineCore" in process.name()]
    print(len(cores), "forkserver" in " ".join(cores[0].parent().cmdline()), engine.probability_by)
    engine.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_vllm_gets_a_fork_of_the_server_and_notes_probabilities() -> None:
    """Both have a way out where vLLM is another, which would be seen in a run's time only."""
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BUILT], env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"1 True {WITH_THE_ANSWER}"


@pytest.mark.parametrize(
    ("now", "alike"),
    [
        ({"LD_PRELOAD": "a.so", "OMP_NUM_THREADS": "1"}, True),
        ({"LD_PRELOAD": "a.so", "OMP_NUM_THREADS": "1", "VLLM_CACHE_ROOT": "x"}, True),
        ({"LD_PRELOAD": "b.so:a.so", "OMP_NUM_THREADS": "1"}, False),
        ({"LD_PRELOAD": "a.so", "OMP_NUM_THREADS": "2"}, False),
        ({"LD_PRELOAD": "a.so"}, False),
        ({"LD_PRELOAD": "a.so", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}, False),
    ],
)
def test_server_is_left_alone_where_a_process_of_now_would_read_something_else(
    now: Mapping[str, str], alike: bool
) -> None:
    begun = {"LD_PRELOAD": "a.so", "OMP_NUM_THREADS": "1", "HOME": "/"}
    assert engine_process.is_alike(begun, now) == alike


def test_libraries_are_those_that_vllm_would_preload_and_none_is_there_twice() -> None:
    once = engine_process.libraries("")
    assert "libgomp" in once
    assert engine_process.libraries(once) == once
    assert engine_process.libraries("/lib/libiomp5.so").endswith("/lib/libiomp5.so")
