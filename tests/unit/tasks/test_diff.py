"""`moderay diff`: what is counted of two outputs, and what is told of them."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from support.label_folders import Row, label_folder
from support.outputs import manifest_file, plain
from support.project import ROOT
from support.scripted import SCRIPT
from support.workbenches import policy_folder

from moderay import api
from moderay.config.policy import Policy, load_policy
from moderay.core.errors import UserError
from moderay.tasks.diff import pairs
from moderay.tasks.diff.records import DiffRecord

Cli = Callable[..., subprocess.CompletedProcess[str]]
SPAM, HARASSMENT = (load_policy(ROOT / "policies" / name) for name in ("spam", "harassment"))
# P of SP0, SP2 and SP4, by the label that it makes the likeliest.
P = {"SP0": [0.9, 0.06, 0.04], "SP2": [0.2, 0.7, 0.1], "SP4": [0.1, 0.1, 0.8], None: None}


def rows(*labels: str | None, policy: str = "spam") -> list[Row]:
    return [(f"text {i}", {policy: P[label]}) for i, label in enumerate(labels)]


def under(policy: Policy, **changes: Any) -> Policy:
    return policy.model_copy(update=changes)


@given(
    judged=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([*P]), st.sampled_from([*P])), max_size=40
    )
)
def test_counts_are_those_of_the_rows_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, judged: list[tuple[int, str | None, str | None]]
) -> None:
    # One text has one verdict in one output.
    said = {text: (a, b) for text, a, b in judged}
    texts = [text for text, _, _ in judged]
    folder = tmp_path_factory.mktemp("outputs")
    for side, name in enumerate("ab"):
        shard = [(f"text {text}", {"spam": P[said[text][side]]}) for text in texts]
        label_folder(folder / name, [SPAM], {"a.parquet": shard})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "WINDOW", 6)
        found = api.diff(folder / "a", folder / "b", show=3)
    spam = found.record.policies["spam"]
    both = [said[text] for text in texts if None not in said[text]]
    violates = Counter((a != "SP0", b != "SP0") for a, b in both)
    assert spam.judged == len(both)
    assert (spam.to_violating, spam.to_safe) == (violates[False, True], violates[True, False])
    assert spam.violating_a == violates[True, True] + violates[True, False]
    assert spam.violating_b == violates[True, True] + violates[False, True]
    assert {(flip.a, flip.b): flip.rows for flip in spam.labels} == Counter(
        pair for pair in both if pair[0] != pair[1]
    )
    missing = Counter((a is None, b is None) for a, b in map(said.__getitem__, texts))
    assert spam.not_judged_a == missing[True, False]
    assert spam.not_judged_b == missing[False, True]
    assert spam.not_judged_both == missing[True, True]
    assert len(found.largest["spam"]) == min(3, sum(a != b for a, b in both))
    # The evidence is of contents: copies are none.
    contents = [said[text] for text in set(texts) if None not in said[text]]
    worse = sum(a == "SP0" and b != "SP0" for a, b in contents)
    better = sum(a != "SP0" and b == "SP0" for a, b in contents)
    assert spam.contents == len(contents)
    assert spam.p_value == pytest.approx(
        binomtest(worse, worse + better).pvalue if worse + better else 1
    )
    if contents:
        exact = binomtest(worse + better, len(contents)).proportion_ci(0.95, "exact")
        flipped = spam.per_million["flipped"]
        assert flipped.value == pytest.approx(1e6 * (worse + better) / len(contents))
        assert [flipped.low, flipped.high] == pytest.approx([1e6 * exact.low, 1e6 * exact.high])


def outputs(folder: Path) -> tuple[Path, Path]:
    """Two wordings of a policy on the same rows: 4 flips of violates and one of a label."""
    before = ["SP0"] * 20 + ["SP4"] * 5 + ["SP2", None, "SP0"]
    now = ["SP0"] * 17 + ["SP4", "SP2", "SP4", "SP0"] + ["SP4"] * 5 + [None, None]
    a = label_folder(folder / "a", [SPAM], {"day=1/x.parquet": rows(*before)})
    text = f"{SPAM.text}\n\nShops are spam."
    other = under(SPAM, text=text, version=SPAM.version + 1)
    b = label_folder(folder / "b", [other], {"day=1/x.parquet": rows(*now)}, {"effort": "high"})
    return a, b


def test_what_changed_is_shown_with_why(
    tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    a, b = outputs(tmp_path)
    files = ["--parquet", tmp_path / "flips.parquet", "--html", tmp_path / "diff.html"]
    result = cli("diff", a, b, "--column", "text", *files)
    assert (result.returncode, result.stderr) == (0, "")
    golden("diff", plain(result.stdout, tmp_path))
    flips = pq.read_table(tmp_path / "flips.parquet").to_pylist()
    assert [(row["row"], row["label_a"], row["label_b"]) for row in flips] == [
        (17, "SP0", "SP4"),
        (18, "SP0", "SP2"),
        (19, "SP0", "SP4"),
        (20, "SP4", "SP0"),
        (25, "SP2", "SP4"),
    ]
    assert flips[0]["rationale_b"] == "why text 17" and flips[0]["text"] == "text 17"
    record = DiffRecord.from_json(cli("diff", a, b, "--json").stdout.encode(), "diff")
    assert record.policies["spam"].to_violating == 3
    page = (tmp_path / "diff.html").read_text("utf-8")
    assert page.count("<article") == 5 and "text 17</pre>" in page


def test_strict_ends_with_1_where_flips_are_more_than_allowed(tmp_path: Path, cli: Cli) -> None:
    a, b = outputs(tmp_path)
    quiet = ("diff", a, b, "--quiet")
    assert cli(*quiet, "--max-flips", "3").returncode == 0
    assert cli(*quiet, "--strict", "--max-flips", "4").returncode == 0
    assert cli(*quiet, "--strict", "--max-flips", "0.2").returncode == 0
    result = cli(*quiet, "--strict", "--max-flips", "3")
    assert (result.returncode, result.stderr) == (1, "spam: 4 flips, more than --max-flips 3\n")
    assert cli(*quiet, "--strict", "--max-flips", "0.1").returncode == 1
    assert cli(*quiet, "--strict").returncode == 1


def test_another_threshold_alone_is_told_as_such(tmp_path: Path, cli: Cli) -> None:
    shard = {"x.parquet": rows("SP0", "SP2", "SP4")}
    a = label_folder(tmp_path / "a", [SPAM], shard)
    b = label_folder(tmp_path / "b", [under(SPAM, threshold=0.85)], shard)
    shown = cli("diff", a, b).stdout
    assert "the judges are the same, and a threshold alone is another one:" in shown
    assert "spam: threshold was 0.5, is 0.85" in shown
    same = cli("diff", a, a).stdout
    assert (
        "policies, judges and thresholds are the same: flips are chance, or another engine's"
        in same
    )
    assert "0 violate" not in same and "2 violate in a and 2 in b" in same


def test_without_a_manifest_who_judged_is_not_known(tmp_path: Path, cli: Cli) -> None:
    a, b = outputs(tmp_path)
    manifest_file(b).unlink()
    result = cli("diff", a, b)
    assert result.returncode == 0
    assert "who judged is not known: one of them has no manifest" in result.stdout


def both_policies(*labels: str | None) -> list[Row]:
    names = HARASSMENT.label_names
    sure = [1.0] + [0.0] * (len(names) - 1)
    return [(text, {**p, "harassment": sure}) for text, p in rows(*labels)]


def test_common_policies_and_rows_are_compared_and_the_rest_is_named(
    tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    a = label_folder(
        tmp_path / "a",
        [SPAM, HARASSMENT],
        {"x.parquet": both_policies("SP0", "SP4", "SP0"), "old.parquet": both_policies("SP0")},
    )
    changed = [("text 0", {"spam": P["SP4"]}), ("another", {"spam": P["SP0"]})]
    b = label_folder(
        tmp_path / "b", [SPAM], {"x.parquet": changed, "new.parquet": [], "z.parquet": []}
    )
    c = label_folder(tmp_path / "c", [SPAM], {"x.parquet": changed, "old.parquet": rows("SP0")})
    d = label_folder(tmp_path / "d", [HARASSMENT], {"x.parquet": both_policies("SP0")})
    two = pa.array([0, 2], pa.int64())
    e = label_folder(tmp_path / "e", [SPAM], {"x.parquet": changed}, gold=two)
    (tmp_path / "empty").mkdir()
    calls: dict[str, tuple[object, ...]] = {
        "other shards": (a, b),
        "other rows": (a, c),
        "no policy in common": (b, d),
        "no output": (a, tmp_path / "empty"),
        "no such column": (c, c, "--column", "txt"),
        "a column that the result has": (e, e, "--column", "policy"),
        "gold of another policy": (a, a, "--gold", "spma=text"),
        "gold of either policy": (a, a, "--gold", "text"),
        "gold that is a text": (c, c, "--gold", "text"),
        "gold that is missing": (c, c, "--gold", "is_spam"),
        "gold that is no truth": (e, e, "--gold", "is_spam"),
        "no number": (c, c, "--max-flips", "many"),
        "a share above 1": (c, c, "--max-flips", "1.5"),
        "a file among labels": (c, c, "--parquet", tmp_path / "c/flips.parquet"),
    }
    told = []
    for name, call in calls.items():
        result = cli("diff", *call)
        assert (result.returncode, result.stdout) == (2, ""), name
        told.append(f"# {name}\n{plain(result.stderr, tmp_path)}")
    golden("diff-refused", "".join(told))
    assert not (tmp_path / "c/flips.parquet").exists()
    common = json.loads(cli("diff", a, b, "--common", "--json").stdout)
    assert (common["rows"], common["policies"]["spam"]["to_violating"]) == (1, 1)
    assert common["left_out"] == {
        "shards_a": 1,
        "shards_b": 2,
        "rows_a": 1,
        "rows_b": 0,
        "other_content": 1,
        "policies_a": ["harassment"],
        "policies_b": [],
    }
    shown = cli("diff", a, b, "--common").stdout
    assert (
        "not compared: policy harassment only in a, 1 shard only in a, 1 row only in a, "
        "2 shards only in b, 1 row of another content" in shown
    )


def test_gold_says_which_is_better_and_how_sure_that_is(
    tmp_path: Path, cli: Cli, golden: Callable[[str, str], None]
) -> None:
    gold = [True] * 12 + [False] * 20 + [None] * 2
    before = ["SP0"] * 10 + ["SP4"] * 2 + ["SP0"] * 20 + ["SP4"] * 2
    now = ["SP0"] * 2 + ["SP4"] * 10 + ["SP0"] * 19 + ["SP2"] + ["SP0"] * 2
    a = label_folder(tmp_path / "a", [SPAM], {"x.parquet": rows(*before)}, gold=pa.array(gold))
    b = label_folder(tmp_path / "b", [SPAM], {"x.parquet": rows(*now)})
    spam = api.diff(a, b, gold=["spam=is_spam"]).record.policies["spam"]
    assert spam.gold is not None
    assert (spam.gold.contents, spam.gold.right_a, spam.gold.right_b) == (32, 1, 8)
    assert spam.gold.p_value == pytest.approx(binomtest(1, 9).pvalue)
    recall = spam.gold.figures["recall"]
    assert [recall.a, recall.b] == pytest.approx([2 / 12, 10 / 12])
    assert recall.gained.low > 0 and recall.gained.value == pytest.approx(8 / 12)
    result = cli("diff", a, b, "--gold", "is_spam", "--show", "0")
    assert (result.returncode, result.stderr) == (0, "")
    golden("diff-gold", plain(result.stdout, tmp_path))


PEOPLE: dict[str, tuple[list[object], list[bool | None]]] = {
    "labels": (["SP4", "SP0", "SP2", None], [True, False, True, None]),
    "votes": (
        [[1, 1, 0], [0, None, 0], [1, None, None], [1, 0, None]],
        [True, False, True, None],
    ),
    "votes of labels": (
        [["SP2", "SP4", None], ["SP0", "SP0", "SP4"], ["SP4", None, None], None],
        [True, False, True, None],
    ),
    "numbers with gaps": ([1.0, 0.0, 1.0, None], [True, False, True, None]),
}


@pytest.mark.parametrize("name", PEOPLE)
def test_gold_may_be_labels_and_votes_as_in_a_job(name: str, tmp_path: Path) -> None:
    said, meant = PEOPLE[name]
    now = {"x.parquet": rows("SP4", "SP4", "SP4", "SP4")}
    b = label_folder(tmp_path / "b", [SPAM], now)
    found = []
    for folder, column in (("said", said), ("meant", meant)):
        shard = {"x.parquet": rows("SP0", "SP0", "SP0", "SP0")}
        a = label_folder(tmp_path / folder, [SPAM], shard, gold=pa.array(column))
        found.append(api.diff(a, b, gold=["is_spam"]).record.policies["spam"].gold)
    assert found[0] == found[1] and found[0] is not None
    assert (found[0].contents, found[0].right_a, found[0].right_b) == (3, 1, 2)


def test_votes_of_different_numbers_of_people_are_refused(tmp_path: Path) -> None:
    shard = {"x.parquet": rows(*["SP0"] * 8)}
    for name, votes in {"near": [[1, 0], [1, 0, 1]] * 4, "far": [[1, 0]] * 6 + [[1]] * 2}.items():
        a = label_folder(tmp_path / name, [SPAM], shard, gold=pa.array(votes))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="votes"):
            patch.setattr(pairs, "WINDOW", 6)
            api.diff(a, a, gold=["is_spam"])


def test_labels_of_people_mean_nothing_where_nobody_knows_the_policy(tmp_path: Path) -> None:
    shard = {"x.parquet": rows("SP0", "SP4")}
    a = label_folder(tmp_path / "a", [SPAM], shard, gold=pa.array(["SP0", "SP4"]))
    votes = label_folder(tmp_path / "v", [SPAM], shard, gold=pa.array([[True, True], None]))
    for folder in (a, votes):
        manifest_file(folder).unlink()
    with pytest.raises(UserError, match=r"says 'SP0'; valid are true, false, 1, 0$"):
        api.diff(a, a, gold=["is_spam"])
    gold = api.diff(votes, votes, gold=["is_spam"]).record.policies["spam"].gold
    assert gold is not None and gold.contents == 1


def test_refused_comparison_leaves_no_file_of_flips(tmp_path: Path, cli: Cli) -> None:
    a = label_folder(tmp_path / "a", [SPAM], {"x.parquet": rows("SP0", "SP4")})
    b = label_folder(tmp_path / "b", [SPAM], {"x.parquet": rows("SP4")})
    result = cli("diff", a, b, "--parquet", tmp_path / "flips.parquet")
    assert result.returncode == 2 and "1 row only in" in result.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"a", "b"}


def another_wording(folder: Path) -> Path:
    """The spam policy, in which shops are none."""
    policy = policy_folder(folder, [])
    text = (policy / "policy.md").read_text()
    (policy / "policy.md").write_text(text + "\nShops are welcome.\n")
    return policy


SHOPS = {
    **SCRIPT,
    "rules": [{"policy": "Shops are welcome", "content": "shop", **SCRIPT["default"]}]
    + SCRIPT["rules"],
}


def test_two_wordings_are_compared_over_a_sample_of_a_job(
    job: Callable[..., Path], corpus: Path, tmp_path: Path, cli: Cli
) -> None:
    other = another_wording(tmp_path)
    result = cli("diff", job(SHOPS), "--policy", other, "--show", "1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "spam: policy differs" in result.stdout
    assert "SP2          SP0" in result.stdout and "visit my shop 2" in result.stdout
    assert "a, reason: A shop." in result.stdout and "b, reason: Nothing." in result.stdout
    whole = json.loads(cli("diff", job(SHOPS), "--policy", other, "--json").stdout)
    # Of 35 rows 6 are of a shop, in each of three shards.
    assert (whole["rows"], whole["policies"]["spam"]["to_safe"]) == (105, 18)
    assert whole["policies"]["spam"]["not_judged_both"] == 105 - whole["policies"]["spam"]["judged"]
    part = ("diff", job(SHOPS), "--policy", other, "--sample", "40", "--json")
    first, again = (json.loads(cli(*part).stdout) for _ in range(2))
    assert 0 < first["rows"] < 105 and first == again
    assert cli("diff", job(SHOPS), "--policy", other, "--strict", "-q").returncode == 1


def test_wordings_that_cannot_be_compared_are_refused(
    job: Callable[..., Path], corpus: Path, tmp_path: Path, cli: Cli
) -> None:
    calls = {
        "the job has no policy 'harassment'": (job(), "--policy", ROOT / "policies/harassment"),
        "--column is of two outputs": (job(), "--policy", tmp_path, "--column", "text"),
        "two folders of labels, or a job and --policy DIR or --repeat N": (job(),),
    }
    for message, call in calls.items():
        result = cli("diff", *call)
        assert result.returncode == 2 and message in result.stderr
