"""Figures for each value of a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.config.policy import Policy
from moderay.core.errors import UserError
from moderay.tasks.evaluate.judged import JudgedRows
from moderay.tasks.evaluate.tally import Tally, tally

# Values of a column that have figures of their own; the rarest of more stand together.
MOST_VALUES = 50
# Values of a column that are counted.
MOST_COUNTED = 1000
OTHERS = "(others)"
NOTHING = "(none)"
# Characters of a value that are shown.
_LONGEST = 40


class Slices:
    """The tallies of one policy by the values of columns."""

    def __init__(self, policy: Policy, by: Sequence[str]) -> None:
        """Nothing is counted yet."""
        self._labels = len(policy.labels)
        self._found: dict[str, dict[str, Tally]] = {name: {} for name in by}

    def add(self, rows: JudgedRows, columns: pa.Table) -> None:
        """Count rows.

        Args:
            rows: Of the policy.
            columns: As many rows; the columns.

        Raises:
            UserError: A column has so many values that they are no kinds.
        """
        known = rows.is_known
        for name, found in self._found.items():
            values = _texts(columns.column(name)).filter(pa.array(known))
            codes = pc.dictionary_encode(values)
            if len({*found, *codes.dictionary.to_pylist()}) > MOST_COUNTED:
                raise UserError(
                    f"--by {name}: it has more than {MOST_COUNTED:,} values: name a column of "
                    "kinds, such as a language"
                )
            self._add(found, rows.at(known), codes)

    def _add(self, found: dict[str, Tally], rows: JudgedRows, codes: pa.DictionaryArray) -> None:
        positions = codes.indices.to_numpy(zero_copy_only=False)
        for number, value in enumerate(codes.dictionary.to_pylist()):
            counted = tally(rows.at(positions == number), self._labels)
            found[value] = found[value] + counted if value in found else counted

    @property
    def tallies(self) -> Mapping[str, Mapping[str, Tally]]:
        """By column and value, values of the most rows first."""
        return {name: _largest(found) for name, found in self._found.items()}


def _largest(found: Mapping[str, Tally]) -> dict[str, Tally]:
    order = [
        value
        for value, _ in Counter({value: each.rows for value, each in found.items()}).most_common()
    ]
    kept = {value: found[value] for value in order[:MOST_VALUES]}
    rest = [found[value] for value in order[MOST_VALUES:]]
    if rest:
        together = rest[0]
        for each in rest[1:]:
            together += each
        kept[OTHERS] = together
    return kept


def _texts(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    texts = array.cast(pa.string(), safe=False).fill_null(NOTHING)
    return pc.utf8_slice_codeunits(texts, 0, _LONGEST)


def length_bands(lengths: np.ndarray) -> pa.Array:
    """Characters of contents as bands, each four times as long as the one before."""
    edges = [64, 256, 1024, 4096, 16384]
    names = [f"up to {edge:,}" for edge in edges] + [f"over {edges[-1]:,}"]
    return pa.array(names).take(pa.array(np.searchsorted(edges, lengths)))
