"""What stops a run."""

import pytest

from moderay.config.job import Limits
from moderay.core.errors import StoppedError
from moderay.pipeline.control.board import BoardState
from moderay.pipeline.control.limits import Brakes
from moderay.pipeline.control.progress import Progress
from moderay.pipeline.control.tracker import Tracker


def test_gpu_hours_are_a_limit() -> None:
    brakes = Brakes(Limits(gpu_hours=1e-9), 8, 1, Progress(None), 0)
    with pytest.raises(StoppedError, match=r"after 1e-09 GPU hours \(limits.gpu_hours\)") as stop:
        brakes.check(BoardState(), Tracker([]))
    assert stop.value.exit_status == 3
