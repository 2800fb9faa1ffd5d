"""Reviews of an output: where they lie, how they are read, and which of them stand.

Each answer is a file of its own, so that two who answer at once lose nothing. At the end of a
sitting its files are put together in one. Nothing is removed before its copy is there, and reading
drops what is there twice: a kill at any point neither loses nor doubles an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from moderay.core.errors import UserError
from moderay.core.hashing import digest
from moderay.core.storage import files_below, remove
from moderay.labels.layout import Layout, read_files
from moderay.labels.review_records import Review

FOLDER = "reviews"
_SINGLE = re.compile(r"[0-9a-f]{32}\.json")
_MERGED = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.jsonl")


class ReviewStore:
    """Reviews of one output; picklable, and any number of writers may have one."""

    def __init__(self, layout: Layout) -> None:
        """Of the output that this is the layout of."""
        self._layout = layout

    def add(self, review: Review) -> None:
        """Keep an answer. One that is kept already is left as it is.

        Raises:
            UserError: Another answer has this id.
            OSError: The storage keeps failing.
        """
        path = self._path(f"{review.id}.json")
        if not self._layout.create(path, review.to_json()):
            raise UserError(f"{path} holds another answer: give this one an id of its own")

    def add_all(self, session: str, reviews: Iterable[Review]) -> None:
        """Keep many answers of one sitting, in one file.

        Raises:
            ValueError: One of them is of another sitting.
            OSError: The storage keeps failing.
        """
        given = sorted(reviews, key=_in_time)
        if strange := [review.id for review in given if review.session != session]:
            raise ValueError(f"review {strange[0]} is not of session {session}")
        if given:
            lines = b"\n".join(review.to_json() for review in given) + b"\n"
            name = f"{session}-{digest([review.id for review in given])}.jsonl"
            if not self._layout.create(self._path(name), lines):
                raise UserError(f"{self._path(name)} holds other answers: give these their own ids")

    def merge(self, session: str) -> None:
        """Put the single files of a sitting together in one, and remove them.

        Raises:
            RecordRefusedError: One is damaged, or of another version.
            OSError: The storage keeps failing.
        """
        files = self._files()
        merged = {
            review.id
            for name, reviews in files.items()
            if (of := _MERGED.fullmatch(name)) and of[1] == session
            for review in reviews
        }
        own = [
            review
            for name, reviews in files.items()
            if _SINGLE.fullmatch(name)
            for review in reviews
            if review.session == session
        ]
        self.add_all(session, (review for review in own if review.id not in merged))
        for review in own:
            remove(self._layout.fs, self._path(f"{review.id}.json"))

    def adopt(self, other: ReviewStore) -> None:
        """Take over the answers of another output, as far as they are not here yet.

        Its files, as they are: an output then holds all that its labels are made of.

        Raises:
            RecordRefusedError: One of them is damaged, or of another version.
            OSError: The storage keeps failing.
        """
        names = set(self._names())
        while missing := [name for name in other._names() if name not in names]:
            paths = [other._path(name) for name in missing]
            try:
                for name, (path, data) in zip(
                    missing, read_files(other._layout, paths), strict=True
                ):
                    _parsed(name, data, path)
                    self._layout.create(self._path(name), data)
                    names.add(name)
            except FileNotFoundError:  # merged since they were listed
                continue

    def read(self) -> list[Review]:
        """All of them, each once, in the order of time.

        Raises:
            RecordRefusedError: One is damaged, or of another version.
            OSError: The storage keeps failing.
        """
        files = self._files()
        found = {review.id: review for reviews in files.values() for review in reviews}
        return sorted(found.values(), key=_in_time)

    def _files(self) -> dict[str, list[Review]]:
        """What there is, by names of files."""
        while True:
            try:
                return self._reviews(self._names())
            except FileNotFoundError:  # merged since they were listed
                continue

    def _reviews(self, names: Sequence[str]) -> dict[str, list[Review]]:
        """The reviews in these files, by their names."""
        contents = read_files(self._layout, [self._path(name) for name in names])
        return {
            name: _parsed(name, data, path)
            for name, (path, data) in zip(names, contents, strict=True)
        }

    def _names(self) -> list[str]:
        """Of all files of reviews: one listing."""
        below = files_below(self._layout.fs, self._layout.private(FOLDER))
        return sorted(
            file.name
            for file in below
            if _SINGLE.fullmatch(file.name) or _MERGED.fullmatch(file.name)
        )

    def _path(self, name: str) -> str:
        return self._layout.private(f"{FOLDER}/{name}")


def _parsed(name: str, data: bytes, path: str) -> list[Review]:
    """The reviews in a file."""
    if _SINGLE.fullmatch(name):
        return [Review.from_json(data, path)]
    lines = enumerate(data.rstrip(b"\n").split(b"\n"), start=1)
    return [Review.from_json(line, f"{path}, line {number},") for number, line in lines]


def _in_time(review: Review) -> tuple[str, str]:
    return review.time, review.id


def answers(reviews: Iterable[Review]) -> list[Review]:
    """Each person's last word on each content under each policy, in the order of time.

    One that was taken back is none; a skipped content ("cannot say") is one, without a label.
    """
    given = sorted(reviews, key=_in_time)
    withdrawn = {review.withdraws for review in given if review.withdraws is not None}
    last = {
        (review.reviewer, review.content_hash, review.policy): review
        for review in given
        if review.withdraws is None and review.id not in withdrawn
    }
    return sorted(last.values(), key=_in_time)


def standing(reviews: Iterable[Review]) -> list[Review]:
    """The answers that say a label, in the order of time.

    Of each person on each content under each policy the last word counts. Who answers, and later
    says that they cannot say, has said nothing.
    """
    return [review for review in answers(reviews) if review.label is not None]
