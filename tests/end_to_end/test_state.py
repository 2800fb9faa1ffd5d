"""What an output holds after damage: found, named, and made again, and nothing else is."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.corpora import as_lines
from support.held import ROWS, UNIT, Held, same_labels, wait_for
from support.outputs import labels, manifest_file, manifest_of
from support.project import ROOT

from moderay.core.storage import filesystem
from moderay.labels.layout import slot

pytestmark = pytest.mark.long

NAMES = ("a.parquet", "b.parquet", "day=2/c.parquet")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, cli) -> Held:  # type: ignore[no-untyped-def]
    """A job, with its output as a killed run left it, and as the next one made it whole."""
    held = Held(tmp_path_factory.mktemp("night"), NAMES)
    held.killed()
    shutil.copytree(held.out, held.folder / "killed")
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    shutil.copytree(held.out, held.folder / "finished")
    return held


@pytest.fixture
def killed(night: Held) -> Held:
    """The output as the killed run left it."""
    shutil.rmtree(night.out)
    shutil.copytree(night.folder / "killed", night.out)
    return night


@pytest.fixture
def finished(night: Held) -> Held:
    """The output as it was once it was whole."""
    shutil.rmtree(night.out)
    shutil.copytree(night.folder / "finished", night.out)
    return night


def one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> bool:
    """Whether stderr is a sentence with these words, after what is being done."""
    lines = [
        line for line in result.stderr.strip().splitlines() if not line.startswith("checking ")
    ]
    return len(lines) == 1 and all(word in lines[0] for word in words)


def repaired(held: Held, cli) -> int:  # type: ignore[no-untyped-def]
    """Have the output mended, check that it is whole, and return the rows that were asked for."""
    assert cli("verify", held.out, "--repair").returncode == 1
    before = held.asked()
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    held.assert_whole()
    result = cli("verify", held.out)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "3 shards with 150 rows are whole" in result.stdout
    return held.asked() - before


def test_killed_run_is_finished_and_nothing_is_paid_twice(killed: Held, cli) -> None:  # type: ignore[no-untyped-def]
    before = killed.asked()
    assert cli("run", killed.job).returncode == 0
    killed.assert_whole()
    assert killed.asked() - before == len(NAMES) * UNIT
    assert cli("verify", killed.out).returncode == 0


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": lambda file: file.unlink(),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:1000]),
    "empty": lambda file: file.write_bytes(b""),
    "another of its size": lambda file: file.write_bytes(file.read_bytes()[::-1]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_label_file_that_is_not_what_was_published_is_labelled_again(
    finished: Held, cli, damage: str
) -> None:  # type: ignore[no-untyped-def]
    before, asked = labels(finished.out), finished.asked()
    DAMAGE[damage](finished.out / "a.parquet")
    result = cli("verify", finished.out)
    assert result.returncode == 1 and one_sentence(
        result, "a.parquet: ", "run the job again: it is labelled anew"
    ), result.stderr
    result = cli("run", finished.job)
    assert result.returncode == 0, result.stderr
    assert "a.parquet is gone, or not the file that was published" in " ".join(
        result.stderr.split()
    )
    assert same_labels(labels(finished.out), before)
    assert finished.asked() - asked == ROWS
    assert manifest_of(finished.out)["rows"] == 150
    assert cli("verify", finished.out).returncode == 0
    assert "nothing to do" in cli("run", finished.job).stdout


def test_damage_that_keeps_size_and_time_is_found_by_reading(finished: Held, cli) -> None:  # type: ignore[no-untyped-def]
    file = finished.out / "a.parquet"
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = cli("verify", finished.out)
    assert result.returncode == 1 and one_sentence(
        result, "a.parquet: its bytes are not those that were published"
    ), result.stderr
    assert repaired(finished, cli) == ROWS


def test_copied_output_is_not_judged_again(finished: Held, cli) -> None:  # type: ignore[no-untyped-def]
    copy = finished.folder / "copy"
    shutil.copytree(finished.out, copy, copy_function=shutil.copyfile)  # other times
    assert cli("verify", copy).returncode == 0
    times = {file: file.stat().st_mtime_ns for file in copy.rglob("*.parquet")}
    asked = finished.asked()
    for words in ("this run: 0 in ", "nothing to do: 3 shards with 150 rows"):
        result = cli("run", finished.job, f"--set=output.path={copy}")
        assert result.returncode == 0 and words in result.stdout, (result.stdout, result.stderr)
    assert finished.asked() == asked
    assert times == {file: file.stat().st_mtime_ns for file in copy.rglob("*.parquet")}
    assert cli("verify", copy).returncode == 0


def test_unit_of_fewer_rows_than_its_name_says_is_a_gap(killed: Held, cli) -> None:  # type: ignore[no-untyped-def]
    unit = next(unit for unit in killed.units() if unit.name.startswith("0-10-"))
    unit.rename(unit.with_name(unit.name.replace("0-10-", f"0-{ROWS}-")))
    result = cli("verify", killed.out)
    assert result.returncode == 1 and "is no whole unit (it holds rows 0-10)" in result.stderr
    before = killed.asked()
    assert cli("run", killed.job).returncode == 0
    killed.assert_whole()
    assert killed.asked() - before == (1 + len(NAMES)) * UNIT
    assert cli("verify", killed.out).returncode == 0


CUTS = {"empty": 0.0, "cut": 0.5}


def cut(file: Path, how: str) -> None:
    """As a power cut leaves it."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * CUTS[how])])


@pytest.mark.parametrize("how", CUTS)
def test_broken_unit_is_a_gap(killed: Held, cli, how: str) -> None:  # type: ignore[no-untyped-def]
    cut(killed.units()[1], how)
    result = cli("verify", killed.out)
    assert result.returncode == 1 and "is no whole unit" in result.stderr, result.stderr
    before = killed.asked()
    assert cli("run", killed.job).returncode == 0
    killed.assert_whole()
    assert killed.asked() - before == (1 + len(NAMES)) * UNIT
    assert cli("verify", killed.out).returncode == 0


def test_unit_whose_middle_is_broken_is_dropped_and_judged_again(killed: Held, cli) -> None:  # type: ignore[no-untyped-def]
    unit = killed.units()[1]
    data = bytearray(unit.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 64] = bytes(64)
    unit.write_bytes(data)
    first = cli("run", killed.job)
    assert first.returncode == 1 and "Traceback" not in first.stderr, first.stderr
    assert "are broken" in first.stderr and "run the same command again" in first.stderr
    second = cli("run", killed.job)
    assert second.returncode == 0, second.stderr
    killed.assert_whole()
    assert cli("verify", killed.out).returncode == 0


@pytest.mark.parametrize("how", CUTS)
def test_broken_beat_says_no_less_than_a_whole_one(killed: Held, cli, how: str) -> None:  # type: ignore[no-untyped-def]
    cut(killed.out / "_moderay/leases/0.beat", how)
    assert cli("run", killed.job).returncode == 0
    killed.assert_whole()


@pytest.mark.parametrize("mended_by", ["run", "verify"])
@pytest.mark.parametrize("how", CUTS)
def test_broken_claim_holds_until_nobody_can_hold_it(
    killed: Held, cli, how: str, mended_by: str
) -> None:  # type: ignore[no-untyped-def]
    claim, beat = (killed.out / f"_moderay/leases/0.{suffix}" for suffix in ("json", "beat"))
    cut(claim, how)
    os.utime(beat)
    for command in ("run", "verify", "status"):
        result = cli(command, killed.job if command == "run" else killed.out)
        assert result.returncode != 0 and "0.json" in result.stderr, (command, result.stderr)
        assert "is damaged" in result.stderr and "Traceback" not in result.stderr
        assert "delete it once nobody writes this output" in result.stderr
    os.utime(claim, (time.time() - 100,) * 2)
    os.utime(beat, (time.time() - 100,) * 2)
    if mended_by == "verify":
        cli("verify", killed.out, "--repair")
        assert not claim.exists() and not beat.exists()
    assert cli("run", killed.job).returncode == 0
    killed.assert_whole()
    assert cli("verify", killed.out).returncode == 0


@pytest.mark.parametrize("how", CUTS)
def test_broken_manifest_is_a_sentence_and_repaired(finished: Held, cli, how: str) -> None:  # type: ignore[no-untyped-def]
    file = manifest_file(finished.out)
    cut(file, how)
    for command in ("run", "status"):
        result = cli(command, finished.job if command == "run" else finished.out)
        assert result.returncode == 2 and one_sentence(
            result, file.name, "is damaged", "delete it: the one before it counts then"
        ), result.stderr
    result = cli("verify", finished.out)
    assert result.returncode == 1 and one_sentence(result, file.name, "is damaged"), result.stderr
    assert repaired(finished, cli) == 0
    manifest = manifest_of(finished.out)
    assert manifest["complete"] and manifest["rows"] == 150
    runs = [run["run"] for run in manifest["runs"]]
    assert runs == list(range(len(runs)))


@pytest.mark.parametrize("how", CUTS)
def test_broken_marker_is_a_sentence_and_its_shard_is_labelled_again(
    finished: Held, cli, how: str
) -> None:  # type: ignore[no-untyped-def]
    marker = next((finished.out / "_moderay/shards").glob("a.parquet-*.json"))
    cut(marker, how)
    result = cli("verify", finished.out)
    assert result.returncode == 1 and one_sentence(
        result, marker.name, "is damaged", "delete it: the same command then judges its shard again"
    ), result.stderr
    for command in ("run", "status"):
        args = (finished.job, "--retry-failed") if command == "run" else (finished.out,)
        result = cli(command, *args)
        assert result.returncode == 2 and one_sentence(result, marker.name), result.stderr
    assert repaired(finished, cli) == ROWS


@pytest.mark.parametrize("how", CUTS)
def test_broken_footers_are_counted_again(job, corpus: Path, tmp_path: Path, cli, how: str) -> None:  # type: ignore[no-untyped-def]
    as_lines(corpus / "b.parquet")
    assert cli("run", job()).returncode == 0
    cut(tmp_path / "out/_moderay/footers.json", how)
    result = cli("run", job())
    assert result.returncode == 0 and "nothing to do: 3 shards with 105 rows" in result.stdout
    assert cli("verify", tmp_path / "out").returncode == 0


@pytest.mark.parametrize("how", CUTS)
def test_broken_marker_of_a_filter_is_a_sentence_and_its_shard_is_filtered_again(
    finished: Held, tmp_path: Path, cli, how: str
) -> None:  # type: ignore[no-untyped-def]
    command = ("filter", "--labels", finished.out, "--keep", "NOT flagged", "--out", tmp_path / "f")
    assert cli(*command).returncode == 0
    kept = labels(tmp_path / "f/kept")
    marker = next((tmp_path / "f/_moderay/shards").glob("a.parquet-*.json"))
    cut(marker, how)
    assert cli(*command).returncode == 0  # what is finished is not read
    (tmp_path / "f/filter.json").unlink()  # as if it had been killed before its end
    result = cli(*command)
    assert result.returncode == 2 and one_sentence(
        result, marker.name, "is damaged", "delete it: the same command then filters its shard"
    ), result.stderr
    marker.unlink()
    assert cli(*command).returncode == 0
    assert labels(tmp_path / "f/kept") == kept


def test_newer_versions_state_is_named_and_never_dropped(finished: Held, cli) -> None:  # type: ignore[no-untyped-def]
    marker = next((finished.out / "_moderay/shards").glob("a.parquet-*.json"))
    for file in (marker, manifest_file(finished.out)):
        newer = re.sub(r'("schema_version": ?)\d+', r"\g<1>99", file.read_text())
        file.write_text(newer)
    there = {file for file in finished.out.rglob("*") if file.is_file()}
    for repair in ((), ("--repair",)):
        result = cli("verify", finished.out, *repair)
        assert result.returncode == 1, result.stderr
        assert result.stderr.count("was written by another version of moderay") == 2
    assert there == {file for file in finished.out.rglob("*") if file.is_file()}


def test_label_file_without_a_marker_is_published_by_the_next_run(finished: Held, cli) -> None:  # type: ignore[no-untyped-def]
    next((finished.out / "_moderay/shards").glob("a.parquet-*.json")).unlink()
    result = cli("verify", finished.out)
    assert result.returncode == 1 and "died before it could publish it" in result.stderr
    assert cli("run", finished.job).returncode == 0
    finished.assert_whole()
    assert cli("verify", finished.out).returncode == 0


def test_somebody_elses_files_in_an_output_are_left_alone(finished: Held, cli) -> None:  # type: ignore[no-untyped-def]
    mine = finished.out / "notes.parquet", finished.out / "README.md"
    for file in mine:
        file.write_bytes(b"mine")
    result = cli("verify", finished.out, "--repair")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert all(file.read_bytes() == b"mine" for file in mine)


def test_labels_of_what_is_gone_or_unreadable_contradict_nothing(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    assert cli("run", held.job).returncode == 0
    (tmp_path / "in" / NAMES[0]).unlink()
    assert cli("run", held.job).returncode == 0
    result = cli("verify", held.out)
    assert result.returncode == 0 and "3 shards with 150 rows" in result.stdout, result.stderr
    (tmp_path / "in" / NAMES[1]).write_bytes(b"no Parquet")
    assert cli("run", held.job).returncode == 1
    assert manifest_of(held.out)["unreadable"]
    result = cli("verify", held.out)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("broken", ["marker", "labels"])
def test_what_is_broken_of_a_file_that_is_gone_is_repaired_for_good(
    tmp_path: Path, cli, broken: str
) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    assert cli("run", held.job).returncode == 0
    (tmp_path / "in" / NAMES[0]).unlink()
    assert cli("run", held.job).returncode == 0
    if broken == "labels":
        (held.out / NAMES[0]).unlink()
    else:
        [marker] = (held.out / "_moderay/shards").glob(f"{NAMES[0]}-*.json")
        marker.write_bytes(b"")
    result = cli("verify", held.out)
    assert result.returncode == 1 and "its input is gone" in result.stderr, result.stderr
    assert cli("verify", held.out, "--repair").returncode == 1
    manifest = manifest_of(held.out)
    assert (manifest["gone"], manifest["shards"], manifest["rows"]) == ([], 2, 100)
    result = cli("verify", held.out)
    assert result.returncode == 0 and "2 shards with 100 rows" in result.stdout, result.stderr
    assert cli("run", held.job).returncode == 0
    assert sorted(labels(held.out)) == sorted(NAMES[1:])
    assert held.asked() == len(NAMES) * ROWS


def test_repaired_manifest_counts_what_the_input_has(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    assert cli("run", held.job).returncode == 0
    (tmp_path / "in" / NAMES[0]).unlink()
    assert cli("run", held.job).returncode == 0
    (held.out / NAMES[1]).unlink()
    result = cli("verify", held.out, "--repair")
    assert result.returncode == 1 and "2 shards with 100 rows are whole" in result.stdout
    manifest = manifest_of(held.out)
    assert (manifest["gone"], manifest["shards"], manifest["rows"]) == ([NAMES[0]], 1, 50)
    assert manifest["input_rows"] == 50 and manifest["counts"]["spam"]["ok"] == 50


def test_output_that_is_in_part_of_earlier_policies_is_repaired(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    assert cli("run", held.job).returncode == 0
    (tmp_path / "in" / NAMES[0]).write_bytes(b"no Parquet")  # so that its labels stay as they are
    both = f"--set=policies=[{ROOT}/policies/spam, {ROOT}/policies/harassment]"
    assert cli("run", held.job, both, "--replace").returncode == 1
    (held.out / NAMES[1]).unlink()
    result = cli("verify", held.out, "--repair")
    assert result.returncode == 1 and one_sentence(result, "its label file is gone"), result.stderr
    manifest = manifest_of(held.out)
    assert (manifest["shards"], manifest["rows"]) == (1, 50)
    assert {name: counts["ok"] for name, counts in manifest["counts"].items()} == {
        "spam": 50,
        "harassment": 50,
    }


def test_broken_unit_of_a_file_that_is_gone_is_repaired_for_good(killed: Held, cli) -> None:  # type: ignore[no-untyped-def]
    source, away = killed.folder / "in" / NAMES[0], killed.folder / "away"
    source.rename(away)
    try:
        assert cli("run", killed.job).returncode == 0
    finally:
        away.rename(source)  # with its time: other tests read the same input
    assert manifest_of(killed.out)["gone"] == [NAMES[0]]
    cut(killed.units()[0], "cut")
    result = cli("verify", killed.out)
    assert result.returncode == 1 and one_sentence(
        result, "is no whole unit", "its input is gone: verify --repair removes what is left of it"
    ), result.stderr
    assert cli("verify", killed.out, "--repair").returncode == 1
    assert cli("verify", killed.out).returncode == 0


def test_labels_that_are_not_pruned_are_still_of_what_is_gone(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    assert cli("run", held.job).returncode == 0
    (tmp_path / "in" / NAMES[0]).unlink()
    another_part = f"--part={(slot(NAMES[0]) + 1) % 2 or 2}/2"
    assert cli("run", held.job, another_part, "--prune").returncode == 0
    assert manifest_of(held.out)["gone"] == [NAMES[0]]
    assert cli("verify", held.out).returncode == 0
    assert cli("run", held.job, "--prune").returncode == 0
    assert manifest_of(held.out)["gone"] == [] and len(labels(held.out)) == 2


@pytest.mark.parametrize("repair", [(), ("--repair",)])
def test_folder_that_is_no_output_is_said_to_be_none(tmp_path: Path, cli, repair) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.parquet").write_bytes(b"no labels")
    for name in ("empty", "other", "missing"):
        result = cli("verify", tmp_path / name, *repair)
        assert result.returncode == 2 and one_sentence(
            result, f"{tmp_path / name} holds no labels of moderay"
        ), result.stderr
    assert not (tmp_path / "missing").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["empty", "other", "a.parquet"] or (
        {path.name for path in tmp_path.rglob("*")} == {"empty", "other", "a.parquet"}
    )


def test_output_under_a_prefix_of_a_store_is_verified_and_repaired(
    finished: Held, bucket: str, cli
) -> None:  # type: ignore[no-untyped-def]
    fs, path = filesystem(f"{bucket}/out")
    fs.put(str(finished.out), path, recursive=True)
    assert "3 shards with 150 rows are whole" in cli("verify", f"{bucket}/out").stdout
    fs.rm_file(f"{path}/a.parquet")
    marker = next(iter(fs.glob(f"{path}/_moderay/shards/b.parquet-*.json")))
    fs.pipe_file(marker, b"")
    for repair in ((), ("--repair",)):
        result = cli("verify", f"{bucket}/out", *repair)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert "a.parquet: its label file is gone" in result.stderr
        assert "is damaged" in result.stderr and "1 shard with 50 rows" in result.stdout
    result = cli("verify", f"{bucket}/out")  # what is left is a label file without its marker
    assert "b.parquet: run " in result.stderr and "a.parquet" not in result.stderr
    assert cli("verify", bucket).returncode == 2


def test_output_that_is_deleted_during_a_run_ends_it_in_a_sentence(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    driver = held.started()
    shutil.rmtree(held.out)
    held.hold.unlink()
    _, printed = driver.communicate(timeout=120)
    assert driver.returncode == 3 and "Traceback" not in printed, printed
    assert f"{held.out} was taken over by another driver, or removed" in printed
    assert labels(held.out) == {}
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    held.assert_whole()
    assert cli("verify", held.out).returncode == 0


def test_output_by_another_url_is_the_same_output(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, NAMES)
    (tmp_path / "link").symlink_to(held.out, target_is_directory=True)
    urls = (tmp_path / "link", f"file://{held.out}", f"{held.folder}/../{held.folder.name}/out")
    driver = held.started()
    for url in urls:
        result = cli("run", held.job, f"--set=output.path={url}")
        assert result.returncode == 3 and one_sentence(
            result, f"is being written by process {driver.pid} on "
        ), result.stderr
    held.hold.unlink()
    _, printed = driver.communicate(timeout=120)
    assert driver.returncode == 0, printed
    held.assert_whole()
    for url in urls:
        assert "nothing to do" in cli("run", held.job, f"--set=output.path={url}").stdout
        assert cli("verify", url).returncode == 0
    assert held.asked() == len(NAMES) * ROWS


UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]


def read_only(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a command for which a folder is mounted without the right to write."""
    mounted = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && "
    script = mounted + " ".join([sys.executable, "-m", "moderay", *map(str, command)])
    return subprocess.run([*UNSHARE, "sh", "-c", script], capture_output=True, text=True)


def test_output_that_may_only_be_read_is_read(night: Held, finished: Held) -> None:
    if "mount" in (result := read_only(finished.out, "--help")).stderr:
        pytest.skip(f"this user may not mount a folder: {result.stderr}")
    result = read_only(finished.out, "run", finished.job)
    assert result.returncode == 0 and "nothing to do" in result.stdout, result.stderr
    for command in ("verify", "status"):
        result = read_only(finished.out, command, finished.out)
        assert result.returncode == 0 and "3 " in result.stdout, result.stderr
    result = read_only(finished.out, "verify", finished.out, "--repair")
    assert result.returncode == 2 and one_sentence(result, "is read-only"), result.stderr
    (finished.out / "a.parquet").unlink()
    result = read_only(finished.out, "run", finished.job)
    assert result.returncode == 2 and one_sentence(result, "is read-only"), result.stderr


ODD = (
    "new\nline.parquet",
    "n" * 222 + ".parquet",
    f"{'ä' * 60}/{'ö' * 90}.parquet",
    "a.parquet::x.parquet",
    "b..%2f/a.parquet",
    "%2e%2e/a.parquet",
    "~/a~b.parquet",
    " a b .parquet",
    "a\\b.parquet",
)


@pytest.mark.parametrize("names", [ODD[:3], ODD[3:6], ODD[6:]], ids=["a", "b", "c"])
def test_odd_names_are_labelled_once_and_stay_so(tmp_path: Path, cli, names) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, names)
    held.killed()
    saved = held.asked()
    assert len(held.units()) == len(names) * 4
    result = cli("run", held.job)
    assert result.returncode == 0, result.stderr
    held.assert_whole()
    assert held.asked() - saved == len(names) * UNIT
    assert f"nothing to do: {len(names)} shards" in cli("run", held.job).stdout
    result = cli("verify", held.out)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert f"{len(names)} of {len(names)} shards published" in cli("status", held.out).stdout
    result = cli("filter", "--labels", held.out, "--keep", "NOT flagged", "--out", tmp_path / "f")
    assert result.returncode == 0, result.stderr
    assert len(labels(tmp_path / "f/kept")) == len(names)
    assert sum(len(table) for table in labels(tmp_path / "f/kept").values()) == len(names) * 17


def test_odd_names_are_relabelled_repaired_and_pruned(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    held = Held(tmp_path, ODD)
    assert cli("run", held.job).returncode == 0
    for name in labels(held.out):
        (held.out / name).write_bytes(b"PAR1")
    result = cli("verify", held.out)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == len(ODD), result.stderr
    assert cli("run", held.job).returncode == 0
    held.assert_whole()
    for marker in (held.out / "_moderay/shards").rglob("*.json"):
        marker.write_bytes(b"")
    result = cli("verify", held.out, "--repair")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert cli("run", held.job).returncode == 0
    held.assert_whole()
    for name in ODD:
        (tmp_path / "in" / name).rename(tmp_path / "in/only.parquet")
    result = cli("run", held.job, "--prune")
    assert result.returncode == 0, result.stderr
    assert list(labels(held.out)) == ["only.parquet"]
    assert len(list((held.out / "_moderay/shards").rglob("*.json"))) == 1


@pytest.mark.parametrize("days", [1, -1])
def test_claim_of_a_machine_whose_clock_is_off_is_over_in_time(
    killed: Held, cli, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:  # type: ignore[no-untyped-def]
    from moderay.labels import lease

    monkeypatch.setattr(lease, "RENEW_S", 0.5)
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    claim = killed.out / "_moderay/leases/0.json"
    beat = claim.with_suffix(".beat")
    claim.write_text(claim.read_text().replace('"machine": "', '"machine": "another '))
    for file in (claim, beat):
        os.utime(file, (time.time() + days * 86_400,) * 2)
    result = cli("status", killed.out)
    assert result.returncode == 0 and "renewed -" not in result.stdout, result.stdout
    before = time.monotonic()
    result = cli("run", killed.job)
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - before < 60
    killed.assert_whole()
    wait_for(lambda: not claim.exists(), 1)
