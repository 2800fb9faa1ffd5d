"""Golden cases as contents."""

from __future__ import annotations

import pyarrow as pa

from moderay.config.policy import GoldenCase
from moderay.corpus.content import Content, conversations, texts


def golden_content(case: GoldenCase) -> Content:
    """What is judged of a golden case."""
    if isinstance(case.content, str):
        [content] = texts(pa.chunked_array([pa.array([case.content.encode()], pa.binary())]))
    else:
        turns = [turn.model_dump() for turn in case.content]
        [content] = conversations(pa.chunked_array([[turns]]))
    return content
