"""The contents that people are shown, known by their hashes."""

from __future__ import annotations

import numpy as np

from moderay.tasks.output_contents import FoundContent
from moderay.tasks.review.items import Item
from moderay.tasks.review.output import ReviewedOutput


def content_of(output: ReviewedOutput, item: Item) -> FoundContent:
    """The content of an item; what has another hash than the labelled content is not shown."""
    marker = output.markers.get(item.shard)
    if marker is None:
        return FoundContent(None, f"{item.shard} is not published any more")
    rows, hashes = np.array([item.row]), [item.key.content_hash]
    [found] = output.contents.read(marker, rows, hashes)
    return found
