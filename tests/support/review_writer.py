"""A process in which a person answers, one content after the other, until it is killed."""

from __future__ import annotations

import itertools
import sys

from moderay.labels.layout import Layout
from moderay.labels.review_records import Review, review_id, review_time
from moderay.labels.reviews import ReviewStore

# Answers after which the sitting's files are put together.
SITTING = 5


def main(url: str, reviewer: str, session: str) -> None:
    """Answer; the id of each answer is printed once it is kept."""
    store = ReviewStore(Layout(url))
    for number in itertools.count():
        review = Review(
            id=review_id(),
            session=session,
            reviewer=reviewer,
            time=review_time(),
            policy="spam",
            policy_hash="0",
            content_hash=f"{number:032x}",
            shard="a.parquet",
            row=number,
            label="SP0",
            queue="safe",
        )
        store.add(review)
        print(review.id, flush=True)
        if number % SITTING == SITTING - 1:
            store.merge(session)


if __name__ == "__main__":
    main(*sys.argv[1:])
