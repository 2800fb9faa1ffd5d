"""What people write in SQL: gated before Polars sees it, and the same for a row in any company."""

import os
import random
import re
import sys
from collections import Counter

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.listeners import Listener, Pipe
from support.patience import within
from support.project import ROOT

from moderay.core.sql.functions import FUNCTIONS
from moderay.core.sql.literals import quoted
from moderay.core.sql.reader import DEEPEST_BRACKETS, LONGEST
from moderay.core.sql.refusal import SqlRefusedError
from moderay.core.sql.row_expression import POLARS_ERRORS, RowExpression, row_expression
from moderay.core.sql.writer import DEEPEST

TABLE = pa.table(
    {
        "n": pa.array([3, None, -1, 0, 2**62, 7], pa.int64()),
        "m": pa.array([0, 2, None, 5, -3, 7], pa.int32()),
        "x": pa.array([0.5, None, float("nan"), float("inf"), -1e300, 2.0], pa.float64()),
        "text": ["A \"quoted\" 'text'", None, "", "ÄÖ\n%_\\", "12.5", "2026-01-31"],
        "lang": ["en", "de", None, "EN", "e", "en\0"],
        "flag": [True, None, False, True, False, None],
        "day": pa.array([0, None, 20_000, -1, 400, 20_000], pa.date32()),
        "list": pa.array([[1, 2], None, [], [None], [5], [7, 7]], pa.list_(pa.int64())),
        "part": pa.array([{"a": 1, "b": {"c": "x"}}, None, {"a": None, "b": None}] * 2),
    }
)

# Each with a word of the sentence that refuses it.
REFUSED = {
    "EXISTS (SELECT * FROM read_csv('x.csv'))": "a query",
    "n IN (SELECT 1)": "a query",
    "n = (SELECT MAX(n) FROM t)": "a query",
    "n = ANY(SELECT 1)": "a query",
    "n IN (WITH t AS (SELECT 1) SELECT * FROM t)": "a query",
    "read_csv('x.csv') = 1": "no function READ_CSV",
    "read_parquet('x.parquet')": "no function READ_PARQUET",
    "text = '\"' OR n > AVG(n)": "AVG looks at many rows",
    "COUNT(*) > 1": "COUNT looks at many rows",
    "SUM(n) OVER (PARTITION BY lang) > 1": "OVER looks at many rows",
    "ROW_NUMBER() OVER (ORDER BY n) = 1": "OVER looks at many rows",
    "MAX(n) FILTER (WHERE n > 1) = 1": "FILTER looks at many rows",
    "COALESCE(DISTINCT n) > 1": "DISTINCT looks at many rows",
    "n > now()": "NOW gives another answer each time",
    "day = CURRENT_DATE": "gives another answer each time",
    "random() < 0.5": "RANDOM gives another answer each time",
    "n > 1 -- and so on": "comment",
    "n > 1 /* and so on */": "comment",
    "n /* and so on */ > 1": "comment",
    "/* and so on */ n > 1": "and so on",
    "n > 1 # and so on": "no SQL",
    "n > 1; n > 2": "';' ends an expression",
    "n > 1;": "';' ends an expression",
    "text = $$a$$": "dollar quotes",
    "text = $a$ ' OR n > 1 OR text = ' $a$": "dollar quotes",
    "text = E'a\\'b'": "escapes",
    "text = 'a' 'b'": "a text beside a text",
    "text = x'61'": "no SQL",
    "text = N'a'": "N'...'",
    "text = 'a": "a quote is not closed",
    'text" = 1': "a quote is not closed",
    "n > 1 AS other": "no SQL",
    "n > 1 other": "no SQL",
    "n > ?": "a parameter",
    "* = 1": "* is not allowed",
    "COLUMNS('n') = 1": "no function COLUMNS",
    '"*" = 1': "no name of a column",
    '"^n.*$" = 1': "no name of a column",
    '"a""b" = 1': "no name of a column",
    "n = m = x": "two ways",
    "text = lang LIKE 'a%'": "two ways",
    "text || n + m = 'a'": "two ways",
    "text LIKE lang": "needs a text in quotes",
    "REGEXP_LIKE(text, lang)": "needs a constant",
    "REGEXP_LIKE(text, '(a')": "unclosed group",
    "text ~ 'a(?=b)'": "look-around",
    "text ~ '(((a{1000}){1000}){1000})'": "size limit",
    "text LIKE 'a' ESCAPE 'b'": "ESCAPE",
    "day > text::date": "a cast to DATE",
    "day > DATE 'today'": "is no DATE",
    "n > 1e9999": "is no number",
    "n IN (m)": "IN needs a constant",
    "n > 1 AND": "something is missing",
    "(n > 1": "no SQL",
    "": "it is empty",
    " \n ": "it is empty",
    "n\0 > 1": "control character",
    "n > 1 \ud800": "control character",
    "n\u00a0> 1": "",
    "x -> 'a' = 1": "-> is not allowed",
    "n = NULL": "NULL is not allowed here",
    "IF(NULL, flag, flag)": "NULL is not allowed here",
    "CASE WHEN NULL THEN flag END": "NULL is not allowed here",
    "flag AND NULL": "NULL is not allowed here",
    "n[1] = 1": "[...] is not allowed",
    "x // m = 1": "// (which fails on infinity",
    "REPEAT(text, 1000000000) = 'a'": "no function REPEAT",
    "REPLACE(text, 'a', 'aaaaaaaa') = 'a'": "no function REPLACE",
    "LEFT(text, m) = 'a'": "LEFT needs a constant",
    "UPPER() = 'a'": "UPPER takes 1 to 1 arguments",
    "\"UPPER\"(text) = 'A'": "no function UPPER",
    "DROP TABLE t": "no SQL",
    "SELECT 1": "no SQL",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_expression_that_is_not_allowed_is_refused_in_a_sentence(sql: str) -> None:
    with pytest.raises(SqlRefusedError) as caught:
        row_expression(sql)
    message = str(caught.value)
    assert REFUSED[sql] in message
    assert "\n" not in message and "sqlglot" not in message and "\x1b" not in message


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("n > 1", [0, 4, 5]),
        ("text = '\"' OR n > 5", [4, 5]),
        ("text = 'A \"quoted\" ''text'''", [0]),
        ("text LIKE '%\\'", [3]),
        ("text ~ '^\\d+\\.\\d$'", [4]),
        ("lang ILIKE 'e_' AND NOT lang IN ('en', 'de')", [3]),
        ("flag IS NOT TRUE", [2, 4]),
        ("NOT flag", [2, 4]),
        ("n IS NULL OR m IS NULL", [1, 2]),
        ("CAST(text AS DOUBLE) > 1", [4]),
        ("day >= DATE '2024-10-04'", [2, 5]),
        ("EXTRACT(YEAR FROM day) = 1970", [0]),
        ("part.a = 1 AND part.b.c = 'x'", [0, 3]),
        ("CASE lang WHEN 'en' THEN n > 1 WHEN 'de' THEN m > 1 END", [0, 1]),
        ("n IS NOT DISTINCT FROM m", [5]),
        ("COALESCE(n, m, 0) BETWEEN 2 AND 3", [0, 1]),
        ("SUBSTR(text, 1, 1) = 'A' OR LENGTH(TRIM(text)) = 0", [0, 2]),
        ("ARRAY_LENGTH(list) > 1 AND ARRAY_CONTAINS(list, 7)", [5]),
        ("n % 2 = 1 AND FLOOR(n / 2) = 1", [0]),
        ("(n = 3) = flag", [0, 2, 4]),
    ],
)
def test_expression_holds_for_the_rows_it_names(sql: str, rows: list[int]) -> None:
    values = row_expression(sql).values(TABLE)
    assert values.dtype == pl.Boolean
    assert [row for row, value in enumerate(values) if value] == rows


def test_expression_names_its_columns_and_fields() -> None:
    expression = row_expression("part.b.c = 'text' OR \"a column\" > n AND n > 1")
    assert expression.paths == (("part", "b", "c"), ("a column",), ("n",))
    assert expression.columns == ("part", "a column", "n")


CALLS = [
    "EXISTS (SELECT * FROM {call})",
    "n IN (SELECT a FROM {call})",
    "n > (SELECT MAX(a) FROM {call})",
    "n = ANY(SELECT a FROM {call})",
    "CASE WHEN n > 1 THEN n IN (SELECT a FROM {call}) ELSE FALSE END",
    "text = '\\' OR n IN (SELECT a FROM {call}) OR text = '\\'",
    "text = $$' OR n IN (SELECT a FROM {call}) OR text = '$$",
    "text = E'\\' OR n IN (SELECT a FROM {call}) OR text = E'\\'",
    "n > 1 /* ' */ OR n IN (SELECT a FROM {call}) --'",
    "{call}",
]


@pytest.mark.parametrize("reader", ["read_csv", "read_json", "read_parquet", "read_ipc"])
def test_no_expression_sends_a_request_or_opens_a_path(
    reader: str, listener: Listener, pipe: Pipe
) -> None:
    for sql in CALLS:
        for target in (f"{listener.url}/a.csv", str(pipe.path)):
            with pytest.raises(SqlRefusedError):
                row_expression(sql.format(call=f"{reader}('{target}')"))
    assert listener.requests == [] and not pipe.opened


def test_sql_reaches_polars_in_one_file_alone() -> None:
    package = ROOT / "pipelines/moderay"
    ways = ("sql_expr(", "SQLContext", ".sql(", "sql_expr as")
    users = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if any(way in file.read_text(encoding="utf-8") for way in ways)
    }
    assert users == {"core/sql/row_expression.py"}


@pytest.mark.parametrize(
    "sql",
    [
        " OR ".join(["n > 1"] * 4_000),
        " OR ".join(["n"] * 1_900),
        "(" * 3_000 + "n" + ")" * 3_000,
        "[" * 3_000,
        "NOT " * 2_000 + "flag",
        "-" * 9_000 + "n > 1",
        "- " * 4_000 + "n > 1",
        "n = NOT " * 1_000 + "flag",
        "CASE WHEN " * 400 + "flag",
        "COALESCE(" * 900 + "n" + ")" * 900,
        "n" + "::int" * 1_500 + " > 1",
        "n" + " + n" * 2_000 + " > 1",
        "text" + " || text" * 1_000 + " = 'a'",
        "part" + ".a" * 4_000 + " = 1",
        "text = " + "'a' " * 2_000,
        "n IN (" + "(" * 4_000,
        "n BETWEEN " * 900 + "1",
        "CASE " + "WHEN flag THEN TRUE " * 400 + "END",
        "SELECT " * 1_400,
        "text LIKE " * 900 + "'a'",
        "n IS DISTINCT FROM " * 500 + "1",
        "{'a': " * 1_600,
        "n -> " * 1_900 + "1",
        "INTERVAL " * 1_100,
        "x" * 9_999 + "(",
        "'" * 9_999,
        '"' * 9_999,
        "$" * 9_999,
        "/*" * 4_999,
        "1" * 9_999 + " > n",
        "n > 1e" + "9" * 9_000,
        "\ufeff" * 9_000,
    ],
    ids=lambda sql: sql[:12],
)
def test_expression_that_is_long_or_deep_ends_soon_and_in_a_sentence(sql: str) -> None:
    with within(5):
        try:
            values = row_expression(sql).values(TABLE)
        except SqlRefusedError as error:
            assert len(str(error)) < 500
        except (pl.exceptions.PolarsError, KeyError):
            pass  # of the types and columns of this table
        else:
            assert len(values) == len(TABLE)


def test_deepest_expression_that_is_allowed_is_evaluated_even_from_deep_within_python() -> None:
    brackets = "(" * (DEEPEST_BRACKETS - 1) + "n > 1" + ")" * (DEEPEST_BRACKETS - 1)
    nots = "NOT (" * (DEEPEST_BRACKETS - 2) + "n > 1" + ")" * (DEEPEST_BRACKETS - 2)
    chain = " OR ".join(f"n = {number}" for number in range(700))
    sums = "n" + " + 1" * (DEEPEST - 2) + " > 1"
    assert len(chain) < LONGEST

    def below(levels: int) -> list[bool]:
        if levels:
            return below(levels - 1)
        row_expression.cache_clear()
        return [
            row_expression(sql).values(TABLE).len() == len(TABLE)
            for sql in (brackets, nots, chain, sums, f"NOT ({chain}) AND {brackets}")
        ]

    assert all(below(sys.getrecursionlimit() // 3))


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(NAMES)
@settings(deadline=None, max_examples=200)
def test_text_in_quotes_is_that_text(text: str) -> None:
    assert pl.select(pl.sql_expr(quoted(text))).item() == text
    table = pa.table({"text": [text, text + "'", None]})
    values = row_expression(f"text = {quoted(text)}").values(table)
    assert values.to_list() == [True, False, None]


@given(NAMES)
@settings(deadline=None, max_examples=200)
def test_name_in_quotes_is_that_column_or_is_refused(name: str) -> None:
    table = pa.table({name: [1, 0], name + " ": [0, 0]})
    sql = '"' + name.replace('"', '""') + '" = 1'
    if '"' in name or name == "*" or (name[0] == "^" and name[-1] == "$"):
        with pytest.raises(SqlRefusedError):
            row_expression(sql)
        return
    assert row_expression(sql).columns == (name,)
    assert row_expression(sql).values(table).to_list() == [True, False]


TEXTS = st.sampled_from(["", "a", "en", "12.5", "'", '"', "%", "_", "\\", "Ä", 'A "quoted"'])
NUMBERS = st.sampled_from(["0", "1", "-1", "2", "7", "0.5", "1e3", "9223372036854775807"])


@st.composite
def numbers(draw: st.DrawFn, depth: int) -> str:
    """A number of a row."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(["n", "m", "x", "part.a"]) | NUMBERS)
    one, two = (draw(numbers(depth - 1)) for _ in range(2))
    text = draw(texts(depth - 1))
    digits = draw(st.integers(0, 5))
    unary = ["ABS", "CEIL", "FLOOR", "SIGN", "SQRT", "CBRT", "EXP", "LN", "LOG2", "LOG10", "LOG1P"]
    listed = ["ARRAY_LENGTH", "ARRAY_LOWER", "ARRAY_UPPER", "ARRAY_SUM", "ARRAY_MEAN"]
    return draw(
        st.sampled_from(
            [
                *(f"({one} {operator} {two})" for operator in ("+", "-", "*", "/", "%")),
                f"(- {one})",
                *(f"{name}({one})" for name in unary),
                *(f"{name}({one}, {two})" for name in ("MOD", "COALESCE", "NULLIF")),
                f"GREATEST({one}, {two})",
                f"LEAST({one}, {two}, 3)",
                f"IFNULL({one}, {two})",
                f"ROUND({one}, {digits})",
                f"LENGTH({text})",
                f"OCTET_LENGTH({text})",
                f"BIT_LENGTH({text})",
                f"STRPOS({text}, 'a')",
                *(f"{name}(list)" for name in listed),
                f"ARRAY_GET(list, {digits})",
                "EXTRACT(YEAR FROM day)",
                "EXTRACT(DOY FROM day)",
                "DATE_PART('month', day)",
                *(f"CAST({text} AS {kind})" for kind in ("TINYINT", "INT", "BIGINT", "DOUBLE")),
                *(f"CAST({one} AS {kind})" for kind in ("TINYINT", "SMALLINT", "REAL")),
                f"CASE WHEN {one} > {two} THEN {one} ELSE {two} END",
            ]
        )
    )


@st.composite
def texts(draw: st.DrawFn, depth: int) -> str:
    """A text of a row."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(["text", "lang", "part.b.c"]) | TEXTS.map(quoted))
    one, two = (draw(texts(depth - 1)) for _ in range(2))
    number = draw(numbers(depth - 1))
    start, length = (draw(st.integers(-3, 5)) for _ in range(2))
    condition = draw(conditions(depth - 1))
    unary = ["LOWER", "UPPER", "INITCAP", "REVERSE", "TRIM", "LTRIM", "RTRIM"]
    return draw(
        st.sampled_from(
            [
                f"({one} || {two})",
                *(f"{name}({one})" for name in unary),
                f"LTRIM({one}, 'a')",
                f"LEFT({one}, {start})",
                f"RIGHT({one}, {start})",
                f"SUBSTR({one}, {start})",
                f"SUBSTR({one}, {start}, {abs(length)})",
                f"COALESCE({one}, {two})",
                f"NULLIF({one}, {two})",
                f"CAST({number} AS VARCHAR)",
                f"IF({condition}, {one}, {two})",
                f"CASE {one} WHEN {two} THEN 'a' WHEN '' THEN {two} END",
            ]
        )
    )


@st.composite
def conditions(draw: st.DrawFn, depth: int) -> str:
    """A condition on a row."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(["flag", "n > 1", "lang = 'en'", "TRUE", "n = n"]))
    one, two = (draw(conditions(depth - 1)) for _ in range(2))
    left, right = (draw(numbers(depth - 1)) for _ in range(2))
    before, after = (draw(texts(depth - 1)) for _ in range(2))
    pattern = quoted(draw(st.sampled_from(["%", "a%", "%_", "_\\%", ".*", "12.5", ""])))
    compare = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
    negated = draw(st.sampled_from(["", "NOT "]))
    return draw(
        st.sampled_from(
            [
                f"({one} AND {two})",
                f"({one} OR {two})",
                f"(NOT {one})",
                f"({left} {compare} {right})",
                f"({before} {compare} {after})",
                f"({left} IS {negated}NULL)",
                f"({one} IS {negated}TRUE)",
                f"({one} IS {negated}FALSE)",
                f"({left} IS {negated}DISTINCT FROM {right})",
                f"({left} {negated}IN (1, -1, 7))",
                f"({before} {negated}IN ('a', 'en', NULL))",
                f"({left} {negated}BETWEEN {right} AND 7)",
                f"({before} {negated}LIKE {pattern})",
                f"({before} {negated}ILIKE {pattern})",
                f"({before} ~ '^[a-z\\d]+')",
                f"({before} ~* 'e')",
                f"REGEXP_LIKE({before}, 'A', 'i')",
                f"STARTS_WITH({before}, 'e')",
                f"ENDS_WITH({before}, 'n')",
                f"(day > DATE '2000-01-01' OR {one})",
                "ARRAY_CONTAINS(list, 7)",
                f"CASE WHEN {one} THEN {two} WHEN {two} THEN {one} ELSE flag END",
                f"COALESCE({one}, {two})",
            ]
        )
    )


def shown(values: pl.Series) -> list[str]:
    """Values that can be compared: NaN is not itself."""
    return [repr(value) for value in values.to_list()]


@pytest.mark.slow
@given(conditions(3), st.permutations(range(len(TABLE))))
@settings(deadline=None, max_examples=200)
def test_value_for_a_row_does_not_depend_on_the_rows_beside_it(sql: str, order: list[int]) -> None:
    assume(len(sql) < LONGEST)
    try:
        expression = row_expression(sql)
    except SqlRefusedError as error:
        assert "deep" in str(error) or "times" in str(error), (sql, str(error))
        return
    assume(expression.columns)
    kind = kind_of(expression)
    assume(kind is not None)
    whole = expression.values(TABLE)
    assert whole.dtype == kind
    alone = pl.concat([expression.values(TABLE.slice(row, 1)) for row in range(len(TABLE))])
    moved = expression.values(TABLE.take(order))
    assert shown(whole) == shown(alone), sql
    assert [shown(whole)[row] for row in order] == shown(moved), sql


def kind_of(expression: RowExpression) -> pl.DataType | None:
    """The type of its values; None where the table's types do not fit it."""
    try:
        return expression.kind(TABLE.schema)
    except POLARS_ERRORS:
        return None


def test_every_function_that_is_allowed_is_one_of_polars() -> None:
    arguments = {
        "REGEXP_LIKE": "text, 'a'",
        "DATE_PART": "'year', day",
        "ARRAY_CONTAINS": "list, 1",
        "ARRAY_GET": "list, 1",
        "IF": "flag, n, m",
        "LEFT": "text, 1",
        "RIGHT": "text, 1",
        "SUBSTR": "text, 1",
        "SUBSTRING": "text, 1",
        "STARTS_WITH": "text, 'a'",
        "ENDS_WITH": "text, 'a'",
        "STRPOS": "text, 'a'",
        "MOD": "n, m",
        "NULLIF": "n, m",
        "IFNULL": "n, m",
        **dict.fromkeys(("LOWER", "UPPER", "INITCAP", "REVERSE", "TRIM", "LTRIM"), "text"),
        **dict.fromkeys(("RTRIM", "LENGTH", "CHAR_LENGTH", "CHARACTER_LENGTH"), "text"),
        **dict.fromkeys(("OCTET_LENGTH", "BIT_LENGTH"), "text"),
        **{name: "list" for name in FUNCTIONS if name.startswith("ARRAY_") and name[6:7] in "LMSU"},
    }
    for name in FUNCTIONS:
        values = row_expression(f"{name}({arguments.get(name, 'x')})").values(TABLE)
        assert len(values) == len(TABLE), name


SEEDS = [
    "lang IN ('en', 'de') AND NOT (n > 3 OR text LIKE '%a%')",
    "CASE lang WHEN 'en' THEN n > 1 ELSE COALESCE(m, -1) BETWEEN 0 AND 2.5 END",
    "part.b.c IS NOT DISTINCT FROM 'x' OR CAST(text AS DOUBLE) / m > 1e3 - x",
    "EXTRACT(YEAR FROM day) = 2024 OR day >= DATE '2024-01-01' OR \"n\" % 2 = 1",
    "REGEXP_LIKE(text, '^[a-z]+\\d', 'i') OR SUBSTR(text, 1, 2) || 'a' = 'b' IS FALSE",
]
PARTS = """\
( ) ' " , . ; -- /* */ $$ $a$ E' x' N' { } [ ] -> ->> :: : ? @ # ~ !~ ~* ^@ << >> ** // ||
&& | & - + * % = <> < == != <=> AND OR NOT NULL TRUE IS IN LIKE BETWEEN CASE WHEN END CAST
AS DISTINCT FROM SELECT EXISTS WITH OVER FILTER ANY ALL INTERVAL COLUMNS(*) read_csv('x')
NOW() COUNT(*) n m x text lang flag day list part 1 -1 1e5 0x1 1_0 'a' 'a''b' "n" LAMBDA
ROW STRUCT MAP UNNEST IF TRIM POSITION AT TIME ZONE COLLATE""".split()


def test_mutated_expression_is_refused_in_a_sentence_or_the_same_for_each_row() -> None:
    chance = random.Random("expressions")
    ends = Counter(mutated_end(chance) for _ in range(int(os.environ.get("MODERAY_FUZZ", "600"))))
    assert ends["refused"] and ends["evaluated"], ends


def mutated_end(chance: random.Random) -> str:
    """How a mutated expression ends; what it should not, is the test's failure."""
    words = re.split(r"(\W)", chance.choice(SEEDS))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(words) + 1)
        words[at : at + chance.choice([0, 0, 1, 2])] = [" ", chance.choice([*PARTS, *words]), " "]
    sql = "".join(words)
    try:
        expression = row_expression(sql)
    except SqlRefusedError as error:
        assert "\n" not in str(error) and "sqlglot" not in str(error), sql
        return "refused"
    assert not re.search(
        r"(?i)\bselect\b|read_csv\(|--|/\*", re.sub(r"'[^']*'|\"[^\"]*\"", "", sql)
    )
    if not expression.columns or not set(expression.columns) <= set(TABLE.column_names):
        return "of no table"
    if kind_of(expression) is None:
        return "of other types"
    whole = expression.values(TABLE)
    alone = pl.concat([expression.values(TABLE.slice(row, 1)) for row in range(len(TABLE))])
    assert shown(whole) == shown(alone), sql
    return "evaluated"


@pytest.mark.parametrize(
    "sql",
    [
        "COALESCE(part, -1) > 1",  # fails on a value, not on an empty table
        "CASE lang WHEN 'nowhere' THEN lang > 1 ELSE flag END",  # fails where a row comes to it
        "CASE WHEN FALSE THEN lang > 1 ELSE flag END",
        "CASE WHEN flag THEN TRUE WHEN lang > 1 THEN FALSE END",
        "IF(FALSE, lang > 1, flag)",
        "COALESCE(TRUE, lang > 1)",
        "IF(flag, n, lang) = 'en'",  # Polars makes texts of n only where a row takes lang
        "CASE WHEN flag THEN part ELSE n END = 1",
        "COALESCE(n, flag) = 1",
        "part = n",
        "CASE part WHEN 1 THEN flag END",
        "CAST(day AS VARCHAR) LIKE '2%'",  # panics where a day is beyond the calendar
    ],
)
def test_type_that_does_not_fit_is_found_before_a_row_comes_to_it(sql: str) -> None:
    with pytest.raises(POLARS_ERRORS):
        row_expression(sql).kind(TABLE.schema)


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("'' = COALESCE('', text)", [True] * 6),  # a constant to Polars, which has one row
        ("- -1 = n", [False, None, False, False, False, False]),  # `--` begins a comment
        ("n - - 1 > 7", [False, None, False, False, True, True]),
        ("-(-(n)) = 7", [False, None, False, False, False, True]),
    ],
)
def test_expression_that_was_once_read_wrongly(sql: str, values: list[bool | None]) -> None:
    assert row_expression(sql).values(TABLE).to_list() == values
    assert row_expression(sql).values(TABLE.slice(0, 0)).to_list() == []


VALUES = pa.table(
    {
        "dec": pa.array([1, 0, None, 2, 0], pa.decimal128(10, 2)),
        "big": pa.array([10**37, 0, None, 1, 2], pa.decimal128(38, 0)),
        "u": pa.array([2**64 - 1, 0, None, 7, 2**63], pa.uint64()),
        "bin": pa.array([b"a", b"\xff", None, b"b", b""], pa.binary()),
        "x": pa.array([1.7e308, 0.1, None, 0.3, float("nan")]),
        "flag": [True, False, None, True, True],
        "pair": pa.array([[1, 2], None, [None, 3], [4, 5], None], pa.list_(pa.int64(), 2)),
    }
)


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("1 / dec > 0.6", [True, None, None, False, None]),
        ("5 % dec = 1", [False, None, None, True, None]),
        ("big * 1000 > 0", [None, False, None, True, True]),
        ("COALESCE(u, -1) < 8", [None, True, True, True, None]),
        ("CAST(bin AS VARCHAR) = 'b'", [False, None, None, True, False]),
        ("flag AND 1 / dec > 0", [True, None, None, True, None]),
        ("pair IS NULL", [False, True, False, False, True]),
        ("ARRAY_LENGTH(pair) = 2", [True, None, True, True, None]),
        ("x / 1.5 = 1.7e308 / 1.5", None),
        ("x / 10 = 0.03", None),
    ],
)
def test_value_that_cannot_be_computed_is_null_and_takes_no_other_row_out(
    sql: str, values: list[bool | None] | None
) -> None:
    expression = row_expression(sql)
    whole = expression.values(VALUES)
    assert whole.dtype == expression.kind(VALUES.schema) == pl.Boolean
    assert values is None or whole.to_list() == values
    for rows in (1, 2, 3):
        parts = [expression.values(VALUES.slice(at, rows)) for at in range(0, len(VALUES), rows)]
        assert pl.concat(parts).to_list() == whole.to_list()


def test_types_that_do_not_fit_are_no_nulls() -> None:
    with pytest.raises(POLARS_ERRORS):
        row_expression("lang > n").values(TABLE)


def test_many_rows_that_cannot_be_computed_cost_moments() -> None:
    table = pa.table({"dec": pa.array([0] * 1_000 + [1] * 1_000, pa.decimal128(10, 2))})
    with within(10):
        assert row_expression("1 / dec > 0").values(table).null_count() == 1_000


@pytest.mark.parametrize(
    "sql",
    [
        "text > 1.5",
        "1.5 > text",
        "text > -(1.5)",
        "text BETWEEN 0.5 AND 1.5",
        "text IN (0.5, 1.5)",
        "CASE text WHEN 1.5 THEN TRUE ELSE FALSE END",
        "CASE WHEN text = 1.5 THEN TRUE ELSE FALSE END",
    ],
)
def test_text_is_not_compared_with_a_number_as_text(sql: str) -> None:
    # Polars does so where the number has a point: '10' comes before '1.5' then.
    with pytest.raises(pl.exceptions.ComputeError, match="cannot compare string with numeric"):
        row_expression(sql).kind(TABLE.schema)
    as_number = row_expression(sql.replace("text", "CAST(text AS DOUBLE)"))
    assert as_number.kind(TABLE.schema) == pl.Boolean
