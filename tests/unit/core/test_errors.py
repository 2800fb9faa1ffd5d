"""Errors on their way between processes."""

import importlib
import pickle
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moderay
from moderay.core.errors import (
    ErrorMessage,
    ModerayError,
    Problem,
    Problems,
    StoppedError,
    UserError,
)
from moderay.core.records import RecordRefusedError


def kinds(kind: type[ModerayError] = ModerayError) -> list[type[ModerayError]]:
    """Every kind of error there is, in any room."""
    return [kind, *(below for child in kind.__subclasses__() for below in kinds(child))]


# Not what runs when it is imported, and not what imports torch or vLLM, which takes seconds.
ASIDE = ("__main__", "preflight", "noting")
for _module in pkgutil.walk_packages(moderay.__path__, "moderay."):
    if not _module.name.endswith(ASIDE) and ".tiny." not in _module.name:
        importlib.import_module(_module.name)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
@given(text=st.text(), status=st.integers(0, 3))
def test_every_kind_arrives_as_it_was_sent(
    kind: type[ModerayError], text: str, status: int
) -> None:
    message = ErrorMessage(kind.__name__, text, status)
    error = ModerayError.restored(message)
    assert type(error) is kind
    assert (str(error), error.exit_status) == (text, status)
    assert error.message == message
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind and arrived.message == message


def test_there_are_kinds_in_several_rooms() -> None:
    rooms = {kind.__module__.split(".")[1] for kind in kinds()}
    assert {"core", "labels"} <= rooms


def test_a_kind_that_is_not_known_here_keeps_its_text_and_its_exit_status() -> None:
    error = ModerayError.restored(ErrorMessage("OfALaterVersion", "no.", 3))
    assert type(error) is ModerayError
    assert (str(error), error.exit_status) == ("no.", 3)


def test_problems_arrive_as_one_that_says_the_same() -> None:
    sent = Problems([Problem("job.yaml", 3, "no such key", "a key"), Problem("", None, "empty")])
    arrived = ModerayError.restored(sent.message)
    assert isinstance(arrived, Problems) and isinstance(arrived, UserError)
    assert str(arrived) == "\n".join(map(str, arrived.problems)) == str(sent)
    assert str(sent) == "job.yaml:3: no such key\n    hint: a key\nempty"


def test_how_a_run_stopped_is_kept() -> None:
    arrived = ModerayError.restored(StoppedError("stopped", 1).message)
    assert isinstance(arrived, StoppedError) and arrived.exit_status == 1


def test_what_a_task_raises_is_unpickled_with_all_it_holds() -> None:
    """Ray pickles it: constructors that take more than a text must not be in the way."""
    problems = Problems([Problem("job.yaml", 3, "no such key", "a key"), Problem("", None, "b")])
    refused = RecordRefusedError("s3://a/lease.json", "is damaged", "restore it", "remove it")
    for sent in (problems, refused, StoppedError("stopped", 1)):
        arrived = pickle.loads(pickle.dumps(sent))
        assert type(arrived) is type(sent)
        assert arrived.message == sent.message
        assert vars(arrived) == vars(arrived) | vars(sent)
