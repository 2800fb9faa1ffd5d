"""The functions that an expression over one row may call.

Each gives the same for a row whatever rows are beside it, and whenever it is called; none opens
anything, fails on a value, or makes more of a text than a few times the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Function:
    """How a function may be called.

    Attributes:
        least: Arguments it needs.
        most: Arguments it takes.
        constant: Positions of arguments that must be constants, from 0.
    """

    least: int
    most: int
    constant: tuple[int, ...] = ()


_UNARY = Function(1, 1)
_BINARY = Function(2, 2)
_SOME = Function(1, 20)

FUNCTIONS: Mapping[str, Function] = {
    **dict.fromkeys(("ABS", "CEIL", "CEILING", "FLOOR", "SIGN", "SQRT", "CBRT"), _UNARY),
    **dict.fromkeys(("EXP", "LN", "LOG2", "LOG10", "LOG1P"), _UNARY),
    "MOD": _BINARY,
    "ROUND": Function(1, 2, constant=(1,)),
    **dict.fromkeys(("COALESCE", "GREATEST", "LEAST"), _SOME),
    **dict.fromkeys(("NULLIF", "IFNULL"), _BINARY),
    "IF": Function(3, 3),
    **dict.fromkeys(("LOWER", "UPPER", "INITCAP", "REVERSE", "TRIM"), _UNARY),
    **dict.fromkeys(("LTRIM", "RTRIM"), Function(1, 2, constant=(1,))),
    **dict.fromkeys(("LENGTH", "CHAR_LENGTH", "CHARACTER_LENGTH"), _UNARY),
    **dict.fromkeys(("OCTET_LENGTH", "BIT_LENGTH"), _UNARY),
    **dict.fromkeys(("LEFT", "RIGHT"), Function(2, 2, constant=(1,))),
    **dict.fromkeys(("SUBSTR", "SUBSTRING"), Function(2, 3, constant=(1, 2))),
    **dict.fromkeys(("STARTS_WITH", "ENDS_WITH", "STRPOS"), Function(2, 2, constant=(1,))),
    "REGEXP_LIKE": Function(2, 3, constant=(1, 2)),
    "DATE_PART": Function(2, 2, constant=(0,)),
    **dict.fromkeys(("ARRAY_LENGTH", "ARRAY_SUM", "ARRAY_MEAN"), _UNARY),
    **dict.fromkeys(("ARRAY_LOWER", "ARRAY_UPPER"), _UNARY),
    **dict.fromkeys(("ARRAY_CONTAINS", "ARRAY_GET"), Function(2, 2, constant=(1,))),
}

# Of which a row gets one of the arguments; of IF one behind the first.
ALIKE = frozenset("COALESCE GREATEST IF IFNULL LEAST NULLIF".split())

# What is refused with a word of its own.
AGGREGATES = frozenset(
    """ANY_VALUE ARRAY_AGG AVG CORR COUNT COVAR COVAR_POP COVAR_SAMP CUME_DIST DENSE_RANK FIRST
    FIRST_VALUE GROUP_CONCAT LAG LAST LAST_VALUE LEAD LISTAGG MAX MEAN MEDIAN MIN MODE NTH_VALUE
    NTILE PERCENT_RANK QUANTILE QUANTILE_CONT QUANTILE_DISC RANK ROW_NUMBER STDDEV STDDEV_SAMP
    STDEV STDEV_SAMP STRING_AGG SUM VAR VARIANCE VAR_SAMP""".split()
)
VOLATILE = frozenset(
    """CURRENTDATE CURRENTDATETIME CURRENTTIME CURRENTTIMESTAMP CURRENT_DATE CURRENT_TIME
    CURRENT_TIMESTAMP LOCALTIME LOCALTIMESTAMP NOW RAND RANDOM TODAY UUID""".split()
)
