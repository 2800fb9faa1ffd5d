"""How long something may take, whatever else the machine does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Assert that what is done inside takes less of the processor, as this process's time.

    By the clock it takes longer on a busy machine, which says nothing of it.
    """
    began = time.process_time()
    yield
    taken = time.process_time() - began
    assert taken < seconds, f"{taken:.1f} s of processor time"
