import pickle
import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outputs import plain
from support.project import ROOT, SHARED

from moderay.config.policy import Policy, load_golden, load_policy
from moderay.core.errors import Problems
from moderay.core.verdicts import VERDICTS
from moderay.corpus.shard import Shard
from moderay.judges.literals import PIECE, Literals, lowered
from moderay.judges.rules import Rules
from moderay.judges.rules_file import check_rules, load_rules
from moderay.labels.decisions import decide

POLICY = load_policy(ROOT / "policies" / "spam")
ALPHABET = "abAB ß_ΣσςİIı1é"
WRONG = """\
rulse: []
rules:
  - {id: unknown-key, label: SP4, patern: x}
  - {id: unknown-label, label: SP5, any_of: [x]}
  - {id: neither, any_of: [x]}
  - {id: both, label: SP4, pass: true, any_of: [x]}
  - {id: no-condition, label: SP4}
  - {id: only-words, label: SP4, words: true}
  - {label: SP4, pattern: no id}
  - {id: twice, label: SP4, any_of: [once]}
  - {id: twice, label: SP4, any_of: [again]}
  - {id: look-around, label: SP4, pattern: "(?<!not )spam"}
  - {id: back-reference, label: SP4, pattern: '(\\w)\\1'}
  - {id: unclosed, label: SP4, pattern: "(a"}
  - {id: huge, label: SP4, pattern: "a{1000}{1000}{10}"}
  - {id: no-pattern, label: SP4, pattern: ""}
  - {id: no-sql, label: SP4, where: lang = 'en' AND}
  - {id: all-rows, label: SP4, where: n > AVG(n)}
  - {id: no-column, label: SP4, where: 1 = 1}
  - {id: no-file, label: SP4, any_of: blokc.txt}
  - {id: no-list, label: SP4, any_of: empty.txt}
  - {id: bytes, label: SP4, any_of: latin.txt}
  - id: literals
    label: SP4
    any_of:
      - fine
      - 419
      - " "
  - {id: kinds, label: SP4, shorter_than: few, words: often, any_of: [], pass: false, where: 3}
  - {id: never, label: SP0, shorter_than: 1}
  - just a text
  - {id: first, label: SP4, any_of: [Free, offer, deal, prize, gift]}
  - {id: second, pass: true, any_of: [gift, deal, FREE, offer, other], shorter_than: 9}
  - {id: third, pass: true, pattern: "^re:"}
  - {id: fourth, label: SP0, pattern: "^re:"}
  - {id: fifth, label: SP0, where: "n > 3"}
  - {id: sixth, label: SP2, where: " n > 3 ", pattern: x}
  - {id: seventh, label: SP0, shorter_than: 7}
  - {id: eighth, pass: true, shorter_than: 7}
"""


def rules(folder: Path, *written: dict[str, Any], policy: Policy = POLICY, **files: str) -> Rules:
    """The rules of a folder with these in rules.yaml; `files`: lists of literals beside it."""
    (folder / "rules.yaml").write_text(
        yaml.safe_dump({"rules": list(written)}, allow_unicode=True, sort_keys=False),
        encoding="utf-8",
    )
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    actual = load_rules(policy, folder)
    assert actual is not None
    return actual


def settled(actual: Rules, texts: list[str | None], **columns: list[Any]) -> list[str | None]:
    """The rule that settled each text; None where none did."""
    table = pa.table(columns) if columns else pa.table({"id": list(range(len(texts)))})
    return actual.settle(pa.array(texts, pa.string()), table).field("rationale").to_pylist()


def refused(folder: Path) -> str:
    with pytest.raises(Problems) as caught:
        load_rules(POLICY, folder)
    return plain(str(caught.value) + "\n", folder)


def test_folder_without_rules_has_none(tmp_path: Path) -> None:
    assert load_rules(POLICY, tmp_path) is None


def test_settled_row_is_a_whole_verdict_and_others_are_null(tmp_path: Path) -> None:
    actual = rules(
        tmp_path,
        {"id": "prize", "label": "SP4", "any_of": ["prize"]},
        {"id": "short", "label": "SP0", "shorter_than": 4},
    )
    column = actual.settle(
        pa.array(["a PRIZE!", "nothing here", None, "", "ok"], pa.large_string()),
        pa.table({"id": range(5)}),
    )
    assert column.type == VERDICTS
    result = dict.fromkeys(VERDICTS.names) | {
        "status": "ok",
        "decided_by": "rules",
        "origin": "judged",
    }
    prize = result | {"scores": [0.0, 0.0, 1.0], "answer": "SP4", "rationale": "prize"}
    short = result | {"scores": [1.0, 0.0, 0.0], "answer": "SP0", "rationale": "short"}
    assert column.to_pylist() == [prize, None, None, None, short]
    decided = decide(column.drop_null(), POLICY.rule).to_pylist()
    assert [(row["violates"], row["label"], row["probability"]) for row in decided] == [
        (True, "SP4", 1.0),
        (False, "SP0", 0.0),
    ]


def test_label_that_yaml_reads_as_a_number_is_the_policys(tmp_path: Path) -> None:
    binary = Policy(id="binary", text="Nothing rude.")
    actual = rules(tmp_path, {"id": "short", "label": 0, "shorter_than": 4}, policy=binary)
    assert actual.settle(pa.array(["ok"]), pa.table({"id": [0]})).field("answer").to_pylist() == [
        "0"
    ]


def test_no_rows_give_no_verdicts(tmp_path: Path) -> None:
    actual = rules(
        tmp_path,
        {
            "id": "all",
            "label": "SP4",
            "any_of": ["x"],
            "pattern": "x",
            "shorter_than": 9,
            "where": "n > 3",
        },
    )
    assert (
        actual.settle(pa.array([], pa.string()), pa.table({"n": pa.array([], pa.int64())})).type
        == VERDICTS
    )


def test_first_rule_that_holds_counts_and_pass_ends_the_search(tmp_path: Path) -> None:
    quoted = {"id": "quoted", "pass": True, "pattern": "^>"}
    prize = {"id": "prize", "label": "SP4", "any_of": ["prize"]}
    short = {"id": "short", "label": "SP0", "shorter_than": 10}
    texts: list[str | None] = ["> a prize", "a prize", "hello", "something longer"]
    assert settled(rules(tmp_path, quoted, prize, short), texts) == [None, "prize", "short", None]
    assert settled(rules(tmp_path, short, prize, quoted), texts) == [
        "short",
        "short",
        "short",
        None,
    ]


def test_every_condition_of_a_rule_must_hold(tmp_path: Path) -> None:
    rule = {
        "id": "all",
        "label": "SP4",
        "any_of": ["prize"],
        "pattern": r"\d",
        "shorter_than": 12,
        "where": "lang = 'en'",
    }
    texts: list[str | None] = ["prize 1", "prize", "1", "prize 1 and more", "prize 1", "prize 1"]
    assert settled(rules(tmp_path, rule), texts, lang=["en", "en", "en", "en", "de", None]) == [
        "all",
        None,
        None,
        None,
        None,
        None,
    ]


def test_shorter_than_counts_characters_and_not_bytes(tmp_path: Path) -> None:
    assert settled(
        rules(tmp_path, {"id": "short", "label": "SP0", "shorter_than": 4}),
        ["ééé", "éééé", "👍👍👍"],
    ) == ["short", None, "short"]


def test_pattern_minds_case_unless_told_otherwise_and_lines(tmp_path: Path) -> None:
    actual = rules(
        tmp_path,
        {"id": "plain", "label": "SP4", "pattern": "^win"},
        {"id": "any-case", "label": "SP2", "pattern": "(?im)^win"},
    )
    assert settled(actual, ["win now", "WIN now", "one\nWin", "no win"]) == [
        "plain",
        "any-case",
        "any-case",
        None,
    ]


def test_where_reads_the_inputs_columns_and_null_is_no(tmp_path: Path) -> None:
    actual = rules(
        tmp_path,
        {"id": "known", "label": "SP0", "where": "n > 3 OR \"the lang\" = 'en'"},
        {"id": "few", "label": "SP2", "where": "n < 2"},
    )
    assert actual.columns == ("n", "the lang")
    assert settled(
        actual, ["x"] * 4, **{"n": [4, 1, None, None], "the lang": ["de", None, None, "en"]}
    ) == ["known", "few", None, "known"]


@pytest.mark.parametrize(
    ("literal", "text", "held"),
    [
        ("straße", "IN DER STRASSE", False),
        ("STRAßE", "in der straße", True),
        ("ÉTÉ", "un été", True),
        ("ПРИЗ", "Ваш приз!", True),
        ("ΟΔΟΣ", "οδος", True),
        ("οδος", "ΟΔΟΣΑ", True),
        ("i\u0307", "İ", True),
        ("K", "\u212a", True),
        ("中奖", "恭喜中奖了", True),
    ],
)
def test_literal_is_found_whatever_its_case(
    tmp_path: Path, literal: str, text: str, held: bool
) -> None:
    assert settled(rules(tmp_path, {"id": "x", "label": "SP4", "any_of": [literal]}), [text]) == (
        ["x"] if held else [None]
    )


@pytest.mark.parametrize(
    ("literal", "text", "held"),
    [
        ("ass", "class assignment", False),
        ("ass", "class, ass.", True),
        ("free", "free", True),
        ("free", "free_4_all", False),
        ("free", "freé free's", True),
        ("$$$", "win $$$", True),
        ("$$$", "win$$$", False),
        ("f4f", "#F4F!", True),
        ("e", "e\u0301", False),
        ("b c", "ab c b cd", False),
    ],
)
def test_words_are_whole_words(tmp_path: Path, literal: str, text: str, held: bool) -> None:
    assert settled(
        rules(tmp_path, {"id": "x", "label": "SP4", "words": True, "any_of": [literal]}), [text]
    ) == (["x"] if held else [None])


LITERALS = st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=8)
TEXTS = st.lists(st.text(ALPHABET, max_size=20), max_size=8)


@settings(deadline=None)
@given(LITERALS, TEXTS)
def test_literals_agree_with_in(literals: list[str], texts: list[str]) -> None:
    low = [lowered(text) for text in texts]
    expected = [any(lowered(literal) in text for literal in literals) for text in low]
    assert Literals.of(literals).occur_in(low).tolist() == expected


@settings(deadline=None)
@given(LITERALS, TEXTS)
def test_words_agree_with_a_regular_expression(literals: list[str], texts: list[str]) -> None:
    low = [lowered(text) for text in texts]
    result = [
        pl.Series(low, dtype=pl.String)
        .str.contains(rf"(?:^|\W){re.escape(lowered(literal))}(?:\W|$)")
        .to_list()
        for literal in literals
    ]
    assert Literals.of(literals, words=True).occur_in(low).tolist() == [
        any(column) for column in zip(*result, strict=True)
    ]


def test_literals_by_the_hundred_thousand_agree_with_in() -> None:
    literals = [f"{number * 7919 % 1_000_003:x}" for number in range(100_000)]
    texts = [f"{number:x} {number * 31:x}" for number in range(0, 4_000_000, 40_000)]
    known = {
        length: {literal for literal in literals if len(literal) == length}
        for length in {len(literal) for literal in literals}
    }
    expected = [
        any(text[at : at + n] in known[n] for n in known for at in range(len(text) - n + 1))
        for text in texts
    ]
    assert Literals.of(literals).occur_in(texts).tolist() == expected
    everything = set(literals)
    assert Literals.of(literals, words=True).occur_in(texts).tolist() == [
        bool(everything & set(text.split())) for text in texts
    ]


@pytest.mark.parametrize("words", [False, True])
def test_literal_is_found_anywhere_in_a_long_text(words: bool) -> None:
    literals, size = Literals.of(["needle", "x" * 40], words), 2 * PIECE + 100
    places = [0, 1, *range(PIECE - 8, PIECE + 8), *range(2 * PIECE - 8, 2 * PIECE + 8), size - 6]
    texts = ["." * path + "needle" + "." * (size - path - 6) for path in places]
    assert literals.occur_in(texts).all()
    joined = [text.replace(".needle", "ineedle") for text in texts[1:]]
    assert literals.occur_in(joined).tolist() == [not words] * len(joined)
    assert not literals.occur_in(["needl" * size, "x" * 39]).any()


def test_literals_of_a_file_are_those_of_a_list(tmp_path: Path) -> None:
    listed = rules(tmp_path, {"id": "x", "label": "SP4", "any_of": ["#ad", "prize", "gift card"]})
    filed = rules(
        tmp_path,
        {"id": "x", "label": "SP4", "any_of": "block.txt"},
        block="\ufeffprize\r\n\r\n  gift card\n#ad",
    )
    assert filed.key == listed.key
    texts: list[str | None] = ["a Gift Card", "giftcard", "#ad", "ad"]
    assert settled(filed, texts) == settled(listed, texts) == ["x", None, "x", None]


def test_literals_refuse_what_every_text_holds() -> None:
    for wrong in ([], ["a", ""]):
        with pytest.raises(ValueError, match="at least one character"):
            Literals.of(wrong)


def test_rules_file_with_many_mistakes_reports_all_at_once(tmp_path: Path, golden) -> None:
    (tmp_path / "rules.yaml").write_text(WRONG)
    (tmp_path / "block.txt").write_text("x\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("gr\u00fcn".encode("latin-1"))
    golden("rules-wrong", refused(tmp_path))


@pytest.mark.parametrize("text", ["rules: []", "rules:", "rules: {id: x}", "{}"])
def test_rules_file_without_rules_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    assert "there is no list of rules" in refused(tmp_path)


@pytest.mark.parametrize(
    "second",
    [
        {"any_of": ["freedom"]},
        {"any_of": ["free"], "label": "SP4"},
        {"any_of": ["fre"], "words": True},
        {"pattern": "free"},
    ],
)
def test_rules_that_only_resemble_each_other_are_no_contradiction(
    tmp_path: Path, second: dict[str, Any]
) -> None:
    rules(
        tmp_path,
        {"id": "a", "label": "SP4", "any_of": ["free"]},
        {"id": "b", "label": "SP0", **second},
    )


@pytest.mark.parametrize(
    "more", [{"shorter_than": 9}, {"where": "n > 3"}, {"pattern": "x"}, {"words": True}]
)
def test_rule_that_narrows_another_may_come_first_and_not_after(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    wide, narrow = (
        {"id": "wide", "label": "SP4", "any_of": ["free"]},
        {"id": "narrow", "pass": True, "any_of": ["FREE"], **more},
    )
    rules(tmp_path, narrow, wide)
    with pytest.raises(Problems, match="never gets to 'free'"):
        rules(tmp_path, wide, narrow)


def shard(name: str, partitions: tuple[tuple[str, str], ...] = ()) -> Shard:
    return Shard(f"/{name}", name, 1, "x", (1,), partitions=partitions)


def test_where_is_checked_under_the_inputs_columns(tmp_path: Path, golden) -> None:
    actual = rules(
        tmp_path,
        {"id": "fine", "label": "SP0", "where": "lang = 'en' AND day = '2'"},
        {"id": "no-column", "label": "SP0", "where": "lagn = 'en'"},
        {"id": "no-bool", "label": "SP0", "where": "n + 1"},
        {"id": "types", "label": "SP0", "where": "lang > n"},
    )
    schema = pa.schema([("lang", pa.string()), ("n", pa.int64())])
    files = [(shard(f"{name}.parquet", (("day", "2"),)), schema) for name in "abc"]
    golden("rules-where", plain("\n".join(map(str, check_rules(actual, files))) + "\n", tmp_path))
    assert not check_rules(rules(tmp_path, {"id": "fine", "label": "SP0", "where": "n > 3"}), files)


def test_rules_come_back_from_pickling_and_judge_the_same(tmp_path: Path) -> None:
    actual = rules(
        tmp_path,
        {"id": "x", "label": "SP4", "any_of": ["prize"]},
        {"id": "few", "label": "SP0", "where": "n < 2"},
    )
    texts: list[str | None] = ["a prize", "a price", "nothing"]
    before = settled(actual, texts, n=[1, 1, 2])
    again = pickle.loads(pickle.dumps(actual))
    assert again == actual and again.key == actual.key
    assert settled(again, texts, n=[1, 1, 2]) == before == ["x", "few", None]


BASE: dict[str, Any] = {
    "id": "x",
    "label": "SP4",
    "any_of": ["prize", "gift"],
    "pattern": "a",
    "shorter_than": 9,
    "where": "n > 3",
}


@pytest.mark.parametrize(
    "same", [{"any_of": ["GIFT", "prize", "Prize"]}, {"words": False}, {"where": " n > 3 "}]
)
def test_key_stays_where_no_outcome_can_change(tmp_path: Path, same: dict[str, Any]) -> None:
    assert rules(tmp_path, BASE | same).key == rules(tmp_path, BASE).key


@pytest.mark.parametrize(
    "other",
    [
        {"id": "y"},
        {"label": "SP2"},
        {"any_of": ["prize"]},
        {"words": True},
        {"pattern": "b"},
        {"shorter_than": 8},
        {"where": "n > 4"},
    ],
)
def test_key_changes_with_everything_that_can_change_an_outcome(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    assert rules(tmp_path, BASE | other).key != rules(tmp_path, BASE).key


def test_key_changes_with_the_order_of_rules_the_outcome_and_one_literal_of_many(
    tmp_path: Path,
) -> None:
    passing = {name: value for name, value in BASE.items() if name != "label"} | {"pass": True}
    other = BASE | {"id": "y", "shorter_than": 8}
    many = "\n".join(f"word{number}" for number in range(1000))
    keys = [
        rules(tmp_path, BASE).key,
        rules(tmp_path, passing).key,
        rules(tmp_path, BASE, other).key,
        rules(tmp_path, other, BASE).key,
        rules(tmp_path, BASE | {"any_of": "many.txt"}, many=many).key,
        rules(
            tmp_path, BASE | {"any_of": "many.txt"}, many=many.replace("word77\n", "word7x\n")
        ).key,
    ]
    assert len(set(keys)) == len(keys)


def test_key_changes_with_the_policys_labels_and_not_with_its_text(tmp_path: Path) -> None:
    labels = POLICY.model_dump()["labels"]
    turned = Policy(id="spam", text="x", labels=dict(reversed(labels.items())))
    milder = Policy(id="spam", text="x", labels=labels | {"SP2": {"violates": False}})
    keys = [
        rules(tmp_path, BASE, policy=policy).key
        for policy in (POLICY, POLICY.model_copy(update={"text": "y"}), turned, milder)
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_shipped_rules_settle_some_golden_cases_and_none_wrongly() -> None:
    actual, cases = (
        load_rules(POLICY, ROOT / "policies" / "spam"),
        load_golden(ROOT / "policies" / "spam"),
    )
    assert actual is not None
    answers = (
        actual.settle(
            pa.array([case.content for case in cases]), pa.table({"id": range(len(cases))})
        )
        .field("answer")
        .to_pylist()
    )
    known = [
        (answer, case.label)
        for answer, case in zip(answers, cases, strict=True)
        if answer is not None
    ]
    assert len(known) >= 3 and all(answer == label for answer, label in known)


def test_real_texts_agree_with_in(tmp_path: Path) -> None:
    if not (SHARED / "tweets").is_dir():
        pytest.skip("no tweets beside the project")
    texts = (
        pq.read_table(sorted((SHARED / "tweets").glob("*.parquet"))[0], columns=["text"])
        .column(0)
        .to_pylist()
    )
    literals = sorted({" ".join(text.split()[:2]) for text in texts[::40]} - {""})
    actual = rules(
        tmp_path, {"id": "x", "label": "SP4", "any_of": "block.txt"}, block="\n".join(literals)
    )
    expected = [any(lowered(literal) in lowered(text) for literal in literals) for text in texts]
    assert [rule is not None for rule in settled(actual, texts)] == expected
