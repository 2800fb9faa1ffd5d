"""The exchange with Label Studio in its own JSON, and golden cases of what people answered.

Label Studio itself is asked by `python -m benchmarks.label_studio`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.outputs import plain
from support.project import ROOT
from support.reviewing import HOSTILE, files_of, items_of, kept, spam_output, spam_rows

from moderay.config.policy import GoldenCase, load_golden
from moderay.core.errors import Problems, UserError
from moderay.corpus.content import content_hash
from moderay.labels.review_records import Review, review_id, review_time
from moderay.labels.reviews import ReviewStore
from moderay.tasks.output_contents import FoundContent, Turn
from moderay.tasks.review.golden import add_golden_cases
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.label_studio.exporting import export_tasks
from moderay.tasks.review.label_studio.importing import Imported, import_answers
from moderay.tasks.review.output import ReviewedOutput

Cli = Callable[..., subprocess.CompletedProcess[str]]
TURNS = (Turn("user", "claim\nyour prize"), Turn("assistant", "No."))


@pytest.fixture
def output(tmp_path: Path) -> ReviewedOutput:
    """Six rows, some of them hostile."""
    return spam_output(tmp_path / "labels", {"a.parquet": spam_rows(6, HOSTILE[:2])})


def annotation(label: str, **more: Any) -> dict[str, Any]:
    """An answer as Label Studio 1.23 exports it, without what is not read."""
    choice = {"from_name": "label", "to_name": "content", "type": "choices"}
    return {
        "id": 7,
        "completed_by": {"id": 1, "email": "anna@example.org"},
        "result": [{**choice, "value": {"choices": [label]}}],
        "was_cancelled": False,
        "created_at": "2026-11-20T08:00:00.123456Z",
        "updated_at": "2026-11-20T08:01:00.123456Z",
        **more,
    }


def exported(output: ReviewedOutput, folder: Path) -> list[dict[str, Any]]:
    """The tasks of all items."""
    tasks, _ = export_tasks(output, items_of(output), folder / "tasks.json")
    read: list[dict[str, Any]] = json.loads(tasks.read_text())
    return read


def answered(tasks: list[dict[str, Any]], folder: Path) -> Path:
    """The tasks as a file to import."""
    file = folder / "answers.json"
    file.write_text(json.dumps(tasks))
    return file


def test_tasks_and_their_configuration_are_as_written(
    output: ReviewedOutput, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    tasks, config = export_tasks(output, items_of(output), tmp_path / "new/tasks.json")
    golden("label-studio-tasks", tasks.read_text())
    golden("label-studio-config", config.read_text())


def test_conversations_are_exported_as_turns(
    output: ReviewedOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text among them is a turn of its own, and both come back under their own hashes."""
    shown = {0: FoundContent("", turns=TURNS), 1: FoundContent("a text")}
    monkeypatch.setattr(
        "moderay.tasks.review.label_studio.exporting.content_of", lambda _, item: shown[item.row]
    )
    parts = [part for turn in TURNS for part in (turn.role, turn.content)]
    hashes = [content_hash(parts), content_hash(["a text"])]
    items = [
        Item(Key("spam", content), "a.parquet", row, "safe") for row, content in enumerate(hashes)
    ]
    tasks, config = export_tasks(output, items, tmp_path / "tasks.json")
    assert '<Paragraphs name="content" value="$turns" nameKey="role"' in config.read_text()
    read = json.loads(tasks.read_text())
    assert [task["data"]["turns"] for task in read] == [
        [{"role": turn.role, "content": turn.content} for turn in TURNS],
        [{"role": "", "content": "a text"}],
    ]
    for task in read:
        task["annotations"] = [annotation("SP4")]
    assert import_answers(output, answered(read, tmp_path), None).added == 2
    assert {review.content_hash for review in kept(tmp_path / "labels")} == set(hashes)


def test_answers_come_back_as_reviews_and_twice_as_once(
    output: ReviewedOutput, tmp_path: Path
) -> None:
    tasks = exported(output, tmp_path)
    note = {"from_name": "note", "type": "textarea", "value": {"text": ["a prize"]}}
    first = annotation("SP4")
    first["result"].append(note)
    tasks[0]["annotations"] = [first, annotation("SP0", completed_by=3)]
    tasks[1]["annotations"] = [annotation("SP4", was_cancelled=True)]
    del tasks[1]["predictions"]
    file = answered(tasks, tmp_path)
    assert import_answers(output, file, "ben") == Imported(3, 0, 4)
    assert import_answers(output, file, "ben") == Imported(0, 3, 4)
    reviews = kept(tmp_path / "labels")
    data = tasks[0]["data"]
    of_first = [review for review in reviews if review.content_hash == data["content_hash"]]
    by_anna, by_ben = sorted(of_first, key=lambda review: review.reviewer)
    assert (by_anna.reviewer, by_anna.label, by_anna.note) == ("anna@example.org", "SP4", "a prize")
    assert (by_anna.queue, by_anna.row, by_anna.time) == (
        "import",
        data["row"],
        "2026-11-20T08:01:00.123456+00:00",
    )
    assert (by_ben.reviewer, by_ben.label, by_ben.assisted) == ("ben", "SP0", True)
    [skipped] = [review for review in reviews if review not in of_first]
    assert (skipped.label, skipped.assisted) == (None, False)
    assert len(files_of(tmp_path / "labels")) == 2  # a file a person and day


def test_what_cannot_be_taken_is_told_task_by_task_and_nothing_is_taken(
    output: ReviewedOutput, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    tasks = exported(output, tmp_path)
    for task in tasks:
        task["annotations"] = [annotation("SP0")]
    tasks[0]["data"]["text"] += " "
    tasks[1]["data"]["policy"] = "spa"
    tasks[2]["annotations"] = [annotation("SP5")]
    tasks[3]["annotations"] = [annotation("SP0", completed_by=None)]
    tasks[4]["annotations"] = [annotation("SP0", created_at=None, updated_at=None)]
    with pytest.raises(Problems) as error:
        import_answers(output, answered(tasks, tmp_path), None)
    golden("label-studio-problems", plain(str(error.value), tmp_path) + "\n")
    assert kept(tmp_path / "labels") == []


def test_people_who_are_numbers_stay_apart(output: ReviewedOutput, tmp_path: Path) -> None:
    tasks = exported(output, tmp_path)
    tasks[0]["annotations"] = [annotation("SP0", completed_by=1), annotation("SP4", completed_by=2)]
    file = answered(tasks, tmp_path)
    with pytest.raises(UserError, match=r"--as ben names one person.*\(users 1, 2 of Label"):
        import_answers(output, file, "ben")
    assert import_answers(output, file, None).added == 2
    people = {review.reviewer for review in kept(tmp_path / "labels")}
    assert people == {"label-studio:1", "label-studio:2"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "Invalid JSON"),
        ('[{"data": {"text": "of another project"}}]', r"0\.data\.policy: Field required"),
        ('{"tasks": []}', "Input should be a valid array"),
    ],
)
def test_a_file_that_is_no_export_is_refused(
    output: ReviewedOutput, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "answers.json").write_text(text)
    with pytest.raises(UserError, match=rf"no export of Label Studio .*{reason}.* as JSON, not as"):
        import_answers(output, tmp_path / "answers.json", None)


def test_what_cannot_be_exported_is_told(output: ReviewedOutput, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a name that ends in \.json is wanted"):
        export_tasks(output, items_of(output), tmp_path / "tasks.xml")
    with pytest.raises(UserError, match="no content is in these queues"):
        export_tasks(output, [], tmp_path / "tasks.json")
    other = [*items_of(output), Item(Key("hate", "0" * 32), "a.parquet", 0, "safe")]
    with pytest.raises(UserError, match="name one of hate, spam with --policy"):
        export_tasks(output, other, tmp_path / "tasks.json")
    gone = replace(output, markers={})
    with pytest.raises(UserError, match=r"no content can be read: a\.parquet is not published"):
        export_tasks(gone, items_of(output), tmp_path / "tasks.json")


@pytest.fixture
def policies(tmp_path: Path) -> Iterator[Path]:
    """A folder with the policy spam, which has two golden cases."""
    folder = tmp_path / "policies"
    shutil.copytree(ROOT / "policies/spam", folder / "spam")
    cases = [{"content": "text number 4", "label": "SP4"}, {"content": "b", "label": "SP0"}]
    (folder / "spam/golden.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    yield folder


def reviewed(output: ReviewedOutput, text: str, label: str, who: str, **more: Any) -> None:
    """Somebody's answer on a text."""
    content = content_hash([text])
    [item] = [item for item in items_of(output) if item.key.content_hash == content]
    review = Review(
        id=review_id(),
        session="0" * 16,
        reviewer=who,
        time=review_time(),
        policy="spam",
        policy_hash=more.pop("policy_hash", output.policies["spam"].hash),
        content_hash=content,
        shard=item.shard,
        row=item.row,
        label=label,
        queue=item.queue,
        **more,
    )
    ReviewStore(output.layout).add(review)


def test_golden_cases_are_made_of_what_people_decided(
    output: ReviewedOutput, policies: Path
) -> None:
    reviewed(output, HOSTILE[0], "SP4", "anna", note="runs a script")
    reviewed(output, HOSTILE[0], "SP4", "ben")
    reviewed(output, "text number 0", "SP0", "anna")
    reviewed(output, "text number 0", "SP2", "ben")  # divided
    reviewed(output, "text number 1", "SP2", "anna", policy_hash="0" * 16)  # of another text
    [added] = add_golden_cases(output, output.chosen([]), policies)
    counts = (added.added, added.known, added.disputed, added.void, added.unreadable)
    assert counts == (1, 0, 1, 1, ())
    assert load_golden(policies / "spam")[2:] == [
        GoldenCase(
            content=HOSTILE[0],
            label="SP4",
            source="review of a.parquet row 0",
            note="runs a script",
        )
    ]
    [again] = add_golden_cases(output, output.chosen([]), policies)
    assert (again.added, again.known) == (0, 1)


def test_a_conversation_becomes_a_golden_case_of_turns(
    output: ReviewedOutput, policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewed(output, HOSTILE[0], "SP4", "anna")
    monkeypatch.setattr(
        "moderay.tasks.review.golden.content_of", lambda *_: FoundContent("", turns=TURNS)
    )
    [added] = add_golden_cases(output, output.chosen([]), policies)
    assert added.added == 1
    case = load_golden(policies / "spam")[-1]
    assert not isinstance(case.content, str)
    assert [(turn.role, turn.content) for turn in case.content] == [
        (turn.role, turn.content) for turn in TURNS
    ]


def test_the_commands_exchange_answers_and_add_golden_cases(
    output: ReviewedOutput, tmp_path: Path, policies: Path, cli: Cli
) -> None:
    folder = str(tmp_path / "labels")
    none = cli("golden", "add", folder, "--folder", str(policies))
    assert (none.returncode, "nobody has reviewed anything of it yet" in none.stderr) == (2, True)
    tasks = tmp_path / "tasks.json"
    done = cli("review", folder, "--queue", "flagged", "--export", str(tasks))
    assert (done.returncode, done.stderr) == (0, "2 tasks\n")
    assert done.stdout == f"written: {tasks}\nwritten: {tasks.with_suffix('.xml')}\n"
    read = json.loads(tasks.read_text())
    read[0]["annotations"] = [annotation("SP0")]
    file = answered(read, tmp_path)
    done = cli("review", folder, "--import", str(file))
    assert (done.returncode, done.stdout) == (0, "1 answer taken, 1 task without one\n")
    done = cli("golden", "add", folder, "--folder", str(policies), "--policy", "spam")
    golden_set = policies / "spam/golden.jsonl"
    known = {"text number 4"}
    added = 0 if read[0]["data"]["text"] in known else 1
    assert done.stdout.startswith(f"{golden_set}: {added} golden case")
    both = cli("review", folder, "--export", "a.json", "--import", "b.json")
    assert (both.returncode, both.stderr) == (
        2,
        "moderay: --export beside --import: leave one of them out\n",
    )
