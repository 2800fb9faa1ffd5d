"""A policy that is being written: what is asked again, what changed, and who is right."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.workbenches import asked, policy_folder, save, script_file, scripted_job, with_trial

from moderay.core.errors import ModerayError, Problems, UserError
from moderay.judges.cascade import Cascade
from moderay.tasks.workbench.policy import FolderWatch, read_policy
from moderay.tasks.workbench.rows import TrialRow, data_rows, text_row
from moderay.tasks.workbench.trial import Trial
from moderay.tasks.workbench.workbench import Decision, Workbench, opened

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_folder(tmp_path)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return script_file(tmp_path)


def labels(trial: Trial) -> list[str | None]:
    return [state.label for state in trial.states]


def test_a_saved_policy_judges_the_rows_again_and_an_undone_edit_asks_nobody(
    policy: Path, script: Path, tmp_path: Path
) -> None:
    text = (policy / "policy.md").read_text()

    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        assert labels(trial) == ["SP4", "SP0", "SP2"]
        assert str(trial.agreement) == "2 of 3 golden cases right, 1 on the wrong side"
        first = asked(tmp_path)
        assert first and not trial.saved()

        save(policy, "# Spam", "# No spam")
        assert trial.saved() and all(state.asking for state in trial.states)
        await trial.judge()
        assert asked(tmp_path) == 2 * first

        (policy / "policy.md").write_text(text)
        assert trial.saved()
        await trial.judge()
        assert asked(tmp_path) == 2 * first and not any(s.asking for s in trial.states)

    with_trial(policy, script, use)


def test_a_threshold_flips_rows_without_asking_anybody(
    policy: Path, script: Path, tmp_path: Path
) -> None:
    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        before = asked(tmp_path)
        save(policy, "threshold: 0.5", "threshold: 0.85")
        assert trial.saved()
        await trial.judge()
        assert asked(tmp_path) == before
        shop = trial.states[2]
        assert (shop.before and shop.before["label"], shop.label) == ("SP2", "SP0")
        assert [state.has_flipped for state in trial.states] == [False, False, True]
        assert not shop.is_wrong

        # What comes to the golden set is no new text: what changed with the last one still shows.
        with (policy / "golden.jsonl").open("a") as file:
            file.write(json.dumps({"content": "one more", "label": "SP0"}) + "\n")
        assert trial.saved()
        await trial.judge()
        assert [state.has_flipped for state in trial.states] == [False, False, True, False]

    with_trial(policy, script, use)


def test_a_policy_that_does_not_load_keeps_the_verdicts_and_names_the_line(
    policy: Path, script: Path
) -> None:
    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        before = labels(trial)
        save(policy, "answer: rationale", "answr: rationale")
        assert trial.saved()
        [problem] = trial.problems
        assert str(problem) == (
            f"{policy}/policy.md:9: unknown key 'answr'\n    hint: did you mean 'answer'?"
        )
        assert labels(trial) == before and not any(state.asking for state in trial.states)
        (policy / "policy.md").unlink()
        assert trial.saved() and "no policy.md" in str(trial.problems[0])

    with_trial(policy, script, use)


def test_rules_settle_and_their_edits_ask_nobody_again(
    policy: Path, script: Path, tmp_path: Path
) -> None:
    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        before = asked(tmp_path)
        (policy / "rules.yaml").write_text("rules:\n- {id: quiet, label: SP2, any_of: [quiet]}\n")
        assert trial.saved()
        assert [problem.message for problem in trial.problems] == []
        await trial.judge()
        quiet = trial.states[1]
        assert quiet.decision is not None
        assert (quiet.label, quiet.decision["trace"]["decided_by"]) == ("SP2", "rules")
        assert asked(tmp_path) == before
        (policy / "rules.yaml").unlink()
        assert trial.saved()
        await trial.judge()
        assert trial.states[1].label == "SP0" and asked(tmp_path) == before

    with_trial(policy, script, use)


def test_rules_over_columns_that_the_rows_have_not(
    policy: Path, script: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": ["hello"], "n": [3]}), tmp_path / "a.parquet")
    rows = data_rows(str(tmp_path / "a.parquet"), "text", None, 10, "spam")
    rule = "rules:\n- {id: many, label: SP2, where: n > 2}\n"
    (policy / "rules.yaml").write_text(rule)
    job = scripted_job(policy, script)

    async def judged() -> tuple[str, str]:
        async with opened(job) as bench:
            cascade = read_policy(policy, job, rows.files).cascade
            of_data, alone = [
                await bench.judge(cascade, row) for row in (rows.rows[0], text_row("hello"))
            ]
            return of_data["label"], alone["label"]

    # A text by itself has no columns: the condition is null, which is no.
    assert asyncio.run(judged()) == ("SP2", "SP0")
    (policy / "rules.yaml").write_text(rule.replace("n >", "m >"))
    with pytest.raises(Problems, match=r"rules.yaml:2: .*no column 'm'"):
        read_policy(policy, job, rows.files)


def test_a_row_becomes_a_golden_case_once(policy: Path, script: Path) -> None:
    (policy / "golden.jsonl").write_text('{"content": "no end", "label": "SP0"}')

    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        state = trial.states[0]
        trial.add_golden(state, "SP2")
        assert trial.saved() and not trial.problems
        assert [state.right for state in trial.states] == ["SP2", None]
        assert trial.states[0].is_wrong
        with pytest.raises(UserError, match=r"golden.jsonl:2 has this content already, as SP2"):
            trial.add_golden(state, "SP0")
        with pytest.raises(UserError, match="no golden case"):
            trial.add_golden(trial.states[1], "SP0")

    text = 'prize "\u2028\x00\x1b[2J\n\U0001f389 点击'
    with_trial(policy, script, use, [text, ""], golden=False)
    lines = (policy / "golden.jsonl").read_text().split("\n")
    assert len(lines) == 3 and json.loads(lines[1])["content"] == text


def test_a_golden_set_is_made_where_there_is_none(policy: Path, script: Path) -> None:
    (policy / "golden.jsonl").unlink()

    async def use(trial: Trial, _: Workbench) -> None:
        trial.add_golden(trial.states[0], "SP4")
        assert trial.saved() and len(trial.policy.golden) == 1

    with_trial(policy, script, use, ["prize"], golden=False)


@pytest.mark.slow
def test_what_failed_is_asked_again_and_what_was_cancelled_is_not_waited_for(
    policy: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.touch()
    rules = [
        {"content": "unlucky", "fail": "request", "while": str(bad)},
        {"content": "stuck", "fail": "hang", "while": str(tmp_path / "stuck")},
    ]
    script = script_file(tmp_path, rules=rules)

    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        first, second = trial.states
        assert first.is_missing and second.label == "SP0"
        bad.unlink()
        trial.ask_again(second)
        assert all(state.asking for state in trial.states)
        await trial.judge()
        assert labels(trial) == ["SP0", "SP0"]

        (tmp_path / "stuck").touch()
        save(policy, "# Spam", "# Another")
        assert trial.saved()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(trial.judge(), 2)
        save(policy, "# Another", "# Spam")
        assert trial.saved()
        await trial.judge()
        assert not any(state.asking for state in trial.states)

    with_trial(policy, script, use, ["unlucky", "stuck"], golden=False)


@pytest.mark.slow
def test_an_engine_that_was_killed_is_named_and_started_again(policy: Path, tmp_path: Path) -> None:
    rules = [{"content": "exit", "fail": "exit", "while": str(tmp_path / "once")}]
    script = script_file(tmp_path, rules=rules)
    (tmp_path / "once").touch()

    async def use(trial: Trial, bench: Workbench) -> None:
        with pytest.raises(
            ModerayError, match=re.escape(f"ended; what it wrote is in {bench.log}")
        ):
            await trial.judge()
        (tmp_path / "once").unlink()
        await trial.judge()
        assert labels(trial) == ["SP0"]

    with_trial(policy, script, use, ["exit"], golden=False)


@pytest.mark.slow
def test_a_policy_that_outgrows_the_engine_gets_a_longer_one(
    policy: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderay.tasks.workbench.workbench.HEADROOM", 0)

    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        save(policy, "# Spam", "# Spam\n\n" + "More of it. " * 500)
        assert trial.saved()
        await trial.judge()
        assert labels(trial) == ["SP4", "SP0", "SP2"]

    with_trial(policy, script, use)


def test_what_the_engine_prints_goes_to_its_log_from_the_first_moment(
    policy: Path, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    noise = "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\n"
    (tmp_path / "sitecustomize.py").write_text(noise)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)

    async def use(trial: Trial, bench: Workbench) -> None:
        await trial.judge()
        assert labels(trial) == ["SP4", "SP0", "SP2"]
        assert sorted(bench.log.read_text().split()) == ["err", "out"]
        bench.log.unlink()  # as those do that tidy up temporary files

    with_trial(policy, script, use)
    assert capfd.readouterr() == ("", "")


def test_the_engine_does_not_outlive_its_workbench(policy: Path, script: Path) -> None:
    def is_engine(process: psutil.Process) -> bool:
        try:
            return "engine_host" in " ".join(process.cmdline())
        except psutil.NoSuchProcess:  # ended, whether or not it was waited for
            return False

    def engines() -> set[int]:
        children = psutil.Process().children(recursive=True)
        return {child.pid for child in children if is_engine(child)}

    async def use(trial: Trial, _: Workbench) -> None:
        await trial.judge()
        assert len(engines()) == 1

    with_trial(policy, script, use)
    assert engines() == set()


def test_a_verdict_that_comes_as_another_text_is_saved_is_not_taken_for_one_on_it(
    policy: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(trial: Trial, bench: Workbench) -> None:
        arrived = asyncio.Event()
        judge = bench.judge

        async def judged_late(cascade: Cascade, row: TrialRow) -> Decision:
            decision = await judge(cascade, row)
            await arrived.wait()
            return decision

        monkeypatch.setattr(bench, "judge", judged_late)
        first = asyncio.create_task(trial.judge())
        await asyncio.sleep(0)
        arrived.set()
        save(policy, "title: Spam and deceptive promotion", "title: Spam")
        assert trial.saved()
        await first
        assert labels(trial) == [None] * 3 and all(state.asking for state in trial.states)

    with_trial(policy, script, use)


def test_a_round_that_is_given_up_while_the_engine_starts_does_not_end_it_for_the_next(
    policy: Path, script: Path
) -> None:
    async def use(trial: Trial, _: Workbench) -> None:
        first = asyncio.create_task(trial.judge())
        await asyncio.sleep(0.1)
        first.cancel()
        await trial.judge()
        assert labels(trial) == ["SP4", "SP0", "SP2"]

    with_trial(policy, script, use)


@pytest.mark.slow
def test_the_engine_ends_with_the_process_that_started_it_however_that_ends(
    policy: Path, tmp_path: Path
) -> None:
    script = script_file(tmp_path, rules=[{"content": "", "fail": "hang"}])
    command = [sys.executable, "-m", "moderay", "try", str(policy), "--model", f"scripted:{script}"]
    env = os.environ | {"TMPDIR": str(tmp_path)}  # where its log stays
    process = psutil.Process(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=env).pid)
    while not (engines := process.children()):
        assert process.is_running()
        time.sleep(0.1)
    process.kill()
    _, alive = psutil.wait_procs(engines, timeout=30)
    assert alive == []


def test_watch_sees_files_written_replaced_added_and_removed(policy: Path) -> None:
    watch = FolderWatch(policy)
    assert not watch.changed()
    (policy / ".swap").write_text("an editor's")
    assert not watch.changed()
    for change in (
        lambda: (policy / "policy.md").write_text("x"),
        lambda: save(policy, "x", "y"),
        lambda: (policy / "words.txt").write_text("prize"),
        lambda: (policy / "words.txt").unlink(),
        lambda: (policy / "policy.md").unlink(),
    ):
        change()
        assert watch.changed() and not watch.changed()


def test_data_rows_are_the_first_that_fit(tmp_path: Path) -> None:
    table = pa.table({"text": [f"row {i}" for i in range(50)], "n": range(50)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    path = str(tmp_path / "a.parquet")
    rows = data_rows(path, None, "n % 10 = 3", 3, "spam").rows
    assert [row.name for row in rows] == [f"a.parquet row {i}" for i in (3, 13, 23)]
    assert [row.content.text for row in rows] == ["row 3", "row 13", "row 23"]
    with pytest.raises(UserError, match="has no row for which n < 0 holds"):
        data_rows(path, None, "n < 0", 3, "spam")
    with pytest.raises(Problems, match="no column 'm'"):
        data_rows(path, None, "m < 0", 3, "spam")
    with pytest.raises(Problems, match="no column 'txt'"):
        data_rows(path, "txt", None, 3, "spam")
    pq.write_table(pa.table({"text": ["x"], "id": ["y"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"--content-column is missing: .* several columns of"):
        data_rows(str(tmp_path / "b.parquet"), None, None, 3, "spam")
    with pytest.raises(UserError, match="no Parquet"):
        data_rows(str(tmp_path / "nosuch.parquet"), None, None, 3, "spam")
