"""What people said, in columns that an output carries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moderay.core.errors import UserError, nearest
from moderay.labels.analysis.diff import NOT_JUDGED


def gold_columns(asked: Sequence[str], policies: Sequence[str]) -> dict[str, str]:
    """Columns by policy.

    Args:
        asked: Each `policy=column`, or a column alone.
        policies: That are compared.

    Raises:
        UserError: It is not known which policy a column is of, or it is compared with none.
    """
    found = {}
    for text in asked:
        policy, is_named, column = text.partition("=")
        if not is_named and len(policies) > 1:
            raise UserError(
                f"--gold {text}: of which policy: --gold {policies[0]}={text}, or of "
                f"{', '.join(policies[1:])}"
            )
        if is_named and policy not in policies:
            raise UserError(f"--gold {text}: no policy {policy!r}: {nearest(policy, policies)}")
        found[policy if is_named else policies[0]] = column if is_named else text
    return found


def gold_sides(rows: pa.Table, column: str) -> np.ndarray:
    """int8: whether people say that a row violates, `NOT_JUDGED` where they say nothing.

    Raises:
        UserError: The column says neither true or false nor 1 or 0.
    """
    values = rows.column(column)
    kind = values.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise UserError(f"--gold {column} is {kind}: {_VALID}")
    numbers = values.cast(pa.int64()).drop_null()
    strange = numbers.filter(pc.invert(pc.is_in(numbers, pa.array([0, 1]))))
    if len(strange):
        raise UserError(f"--gold {column} says {strange[0]}: {_VALID}")
    return np.asarray(values.cast(pa.int8()).fill_null(NOT_JUDGED).to_numpy())


_VALID = "valid are true or false, 1 or 0, and null where nobody knows"
