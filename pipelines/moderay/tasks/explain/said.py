"""What people said of contents: the reviews of an output, by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.reviews import ReviewStore, standing
from moderay.labels.review_records import Review
from moderay.tasks.explain.golden_cases import GoldenSet
from moderay.tasks.explain.output import OpenOutput
from moderay.tasks.explain.records import ReviewPart
