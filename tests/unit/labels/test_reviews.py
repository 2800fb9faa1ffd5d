"""Reviews are kept whatever is killed, and what several people say becomes one correction."""

import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from moderay.core.errors import UserError
from moderay.core.records import OtherVersionError, RecordRefusedError
from moderay.labels import reviews as store_module
from moderay.labels.corrections import ReviewedPolicy, corrections
from moderay.labels.layout import Layout, list_state
from moderay.labels.review_records import (
    Review,
    policy_hash,
    review_id,
    review_time,
    session_id,
)
from moderay.labels.reviews import ReviewStore, standing

LABELS = {"SP0": False, "SP1": False, "SP2": True, "SP4": True}
SPAM = ReviewedPolicy(policy_hash("no spam", LABELS), LABELS)
SESSION = "ab" * 8


class Clock:
    """Reviews, each a microsecond later than the one before."""

    def __init__(self) -> None:
        self.ticks = 0

    def review(self, label: str | None = "SP0", **fields: Any) -> Review:
        self.ticks += 1
        given = {
            "id": review_id(),
            "session": SESSION,
            "reviewer": "ann",
            "time": f"2026-11-20T08:00:00.{self.ticks:06}+00:00",
            "policy": "spam",
            "policy_hash": SPAM.hash,
            "content_hash": "c1",
            "shard": "a.parquet",
            "row": 3,
            "queue": "borderline",
        }
        return Review.model_validate({**given, "label": label, **fields})


@pytest.fixture
def said() -> Clock:
    return Clock()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "out"))


def decided(*reviews: Review) -> str | None:
    """The label that these make of content c1 under spam."""
    made = corrections(reviews, {"spam": SPAM}).by_policy["spam"].get("c1")
    return made.label if made else None


def files(layout: Layout) -> list[str]:
    folder = Path(layout.private("reviews"))
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


def check_round_trip(layout: Layout, said: Clock) -> None:
    store = pickle.loads(pickle.dumps(ReviewStore(layout)))
    assert store.read() == []
    given = [said.review(label, note="é\n\u2028 <b>", reviewer="bo") for label in LABELS]
    for review in reversed(given):
        store.add(review)
        store.add(review)
    assert store.read() == given
    other = said.review(session=session_id())
    store.add(other)
    store.merge(SESSION)
    store.merge(SESSION)
    assert store.read() == [*given, other]
    assert len(store._names()) == 2
    with pytest.raises(UserError, match="holds another answer"):
        store.add(other.model_copy(update={"label": "SP4"}))


def test_reviews_are_read_as_they_were_added(layout: Layout, said: Clock) -> None:
    check_round_trip(layout, said)


def test_reviews_in_a_bucket_are_read_as_they_were_added(bucket: str, said: Clock) -> None:
    check_round_trip(Layout(f"{bucket}/out"), said)


def test_time_of_a_review_is_utc_with_microseconds(said: Clock) -> None:
    assert said.review(time=review_time()).time.endswith("+00:00")
    with pytest.raises(ValueError, match="time"):
        said.review(time="2026-11-20T08:00:00Z")


def test_answers_of_one_sitting_in_one_file(layout: Layout, said: Clock) -> None:
    store = ReviewStore(layout)
    given = [said.review() for _ in range(5)]
    for _ in range(2):
        store.add_all(SESSION, given)
    assert store.read() == given
    assert len(files(layout)) == 1
    with pytest.raises(ValueError, match="session"):
        store.add_all(session_id(), given)


def test_writers_and_mergers_at_once_lose_nothing(layout: Layout) -> None:
    sessions = [session_id() for _ in range(3)]
    given: list[Review] = []
    read: list[int] = []

    def sit(session: str) -> None:
        clock = Clock()
        for number in range(20):
            review = clock.review(session=session, content_hash=str(number))
            ReviewStore(layout).add(review)
            given.append(review)
            if number % 5 == 4:
                ReviewStore(layout).merge(session)
            read.append(len(ReviewStore(layout).read()))

    # Two of each session: they merge the same files at once.
    threads = [threading.Thread(target=sit, args=(session,)) for session in sessions * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 120
    found = ReviewStore(layout).read()
    assert sorted(review.id for review in found) == sorted(review.id for review in given)
    for session in sessions:
        ReviewStore(layout).merge(session)
    assert ReviewStore(layout).read() == found
    assert all(name.endswith(".jsonl") for name in files(layout))


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("steps", range(5))
def test_merge_that_is_killed_neither_loses_nor_doubles(
    layout: Layout, said: Clock, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    given = [said.review(content_hash=str(number)) for number in range(3)]
    store = ReviewStore(layout)
    for review in given:
        store.add(review)
    left = iter(range(steps))

    def step(then: Any) -> Any:
        def dying(*args: Any) -> Any:
            if next(left, None) is None:
                raise KilledError
            return then(*args)

        return dying

    with monkeypatch.context() as patched:
        patched.setattr(Layout, "create", step(Layout.create))
        patched.setattr(store_module, "remove", step(store_module.remove))
        if steps < 4:
            with pytest.raises(KilledError):
                store.merge(SESSION)
        else:
            store.merge(SESSION)
    assert store.read() == given
    later = said.review(content_hash="later")
    store.add(later)
    store.merge(SESSION)
    assert store.read() == [*given, later]
    lines = [Path(layout.private(f"reviews/{name}")).read_text() for name in files(layout)]
    assert "".join(lines).count("\n") == 4 and all("jsonl" in name for name in files(layout))


def test_reader_lists_again_when_a_sitting_is_merged_meanwhile(
    layout: Layout, said: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [said.review(content_hash=str(number)) for number in range(3)]
    store = ReviewStore(layout)
    for review in given:
        store.add(review)
    listed = ReviewStore._names
    merges = iter([True])

    def then_merged(self: ReviewStore) -> list[str]:
        names = listed(self)
        if next(merges, False):
            ReviewStore(layout).merge(SESSION)
        return names

    monkeypatch.setattr(ReviewStore, "_names", then_merged)
    assert store.read() == given


def test_broken_file_is_named_in_a_sentence(layout: Layout, said: Clock) -> None:
    store = ReviewStore(layout)
    review = said.review()
    path = layout.private(f"reviews/{review.id}.json")
    for data, said_of_it in (
        (review.to_json()[:-9], "no JSON"),
        (b'{"schema_version": 1, "id": "x"}', "id: String should match"),
    ):
        layout.write(path, data)
        with pytest.raises(RecordRefusedError, match=said_of_it) as error:
            store.read()
        assert str(error.value).startswith(path) and "\n" not in str(error.value)
    layout.write(path, review.to_json().replace(b'"schema_version":1', b'"schema_version":2'))
    with pytest.raises(OtherVersionError, match="another version"):
        store.read()
    Path(path).unlink()
    store.add_all(SESSION, [review, said.review()])
    merged = Path(layout.private(f"reviews/{files(layout)[0]}"))
    merged.write_bytes(merged.read_bytes()[:-9])
    with pytest.raises(RecordRefusedError, match=rf"{merged.name}, line 2, is damaged"):
        store.read()


def test_reviews_are_no_state_of_labels(layout: Layout, said: Clock) -> None:
    store = ReviewStore(layout)
    store.add(said.review())
    store.merge(SESSION)
    store.add(said.review())
    # What a killed writer leaves, and files of other kinds.
    layout.write(layout.private("reviews/.abc"), b"{")
    layout.write(layout.private("reviews/plan.json"), b"{")
    state = list_state(layout)
    assert state.is_empty and not state.stamps and not state.scratch
    assert len(store.read()) == 2


def test_last_word_of_each_person_stands(said: Clock) -> None:
    first, second = said.review("SP0"), said.review("SP4")
    bo = said.review("SP2", reviewer="bo")
    assert standing([bo, second, first]) == [second, bo]
    undo = said.review(None, withdraws=second.id)
    assert standing([undo, bo, second, first]) == [first, bo]
    skipped = said.review(None, reviewer="bo")
    assert standing([first, bo, skipped]) == [first]
    assert standing([first, bo, skipped, said.review(None, withdraws=skipped.id)]) == [first, bo]


def test_majority_of_sides_then_the_commonest_label_decides(said: Clock) -> None:
    def by(*labels: str) -> list[Review]:
        return [said.review(label, reviewer=str(number)) for number, label in enumerate(labels)]

    assert decided(*by("SP4")) == "SP4"
    assert decided(*by("SP0", "SP2", "SP4", "SP4", "SP0")) == "SP4"
    assert decided(*by("SP4", "SP0", "SP1")) == "SP0"
    # More say SP0 than any other label, but the other side has more people.
    assert decided(*by("SP0", "SP0", "SP2", "SP4", "SP4")) == "SP4"
    assert decided(*by("SP4", "SP2")) == "SP2"
    assert decided(*by("SP4", "SP0")) is None
    tie = corrections(by("SP4", "SP0"), {"spam": SPAM})
    assert tie.disputed == (("spam", "c1"),) and len(tie) == 0
    [note] = tie.notes
    assert note.startswith("spam: on 1 content as many people say one side as the other")


def test_correction_says_who_and_why(said: Clock) -> None:
    ann = said.review("SP4", note="sells")
    other = said.review("SP0", reviewer="bo", note="no")
    last = said.review("SP4", reviewer="cy")
    made = corrections([ann, other, last], {"spam": SPAM}).by_policy["spam"]["c1"]
    assert (made.violates, made.note, made.time) == (True, "sells", last.time)
    assert (made.reviewers, made.reviews) == (("ann", "cy"), (ann.id, last.id))


def test_answer_to_another_text_is_void(said: Clock) -> None:
    answer = said.review("SP4")
    assert policy_hash("no spam", LABELS) == SPAM.hash
    assert policy_hash("no spam", {**LABELS, "SP1": True}) != SPAM.hash
    changed = {"spam": ReviewedPolicy(policy_hash("no spam, please", LABELS), LABELS)}
    made = corrections([answer], changed)
    assert made.void == (answer,) and not made.by_policy["spam"]
    again = said.review("SP0", policy_hash=changed["spam"].hash)
    made = corrections([answer, again], changed)
    assert not made.void and made.by_policy["spam"]["c1"].label == "SP0"
    # The text before is back: what was said under it counts again.
    assert decided(answer, again) == "SP4"
    undo = said.review(None, withdraws=answer.id)
    assert not corrections([answer, undo], changed).void
    assert not corrections([answer], {}).void
    assert list(made.notes) == []
    [note] = corrections([answer], changed).notes
    assert note.startswith("spam: 1 answer of people is void: the policy's text has changed")
    strange = said.review("SP9")
    assert corrections([strange], {"spam": SPAM}).void == (strange,)
