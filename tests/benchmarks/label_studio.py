"""Whether Label Studio takes what `moderay review --export` writes, and moderay what that exports.

Label Studio pins other versions than this project, so that it gets an environment of its own, made
on the first call. Its own server is started on an empty database; tasks, labeling configuration and
answers go through its API, as an annotator's would.

    python -m benchmarks.label_studio --environment /tmp/label-studio
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.reviewing import HOSTILE, free_port, items_of, kept, spam_output, spam_rows

from moderay.tasks.review.label_studio.exporting import export_tasks
from moderay.tasks.review.label_studio.importing import import_answers

# Of the one person in its database.
WHO, SECRET = "anna@example.org", "secret-of-a-test-0"
TOKEN = "0123456789abcdef" * 2 + "01234567"
# Seconds in which its server answers on an empty database.
START_S = 300
LABELS = ("SP0", "SP2", "SP4")
# Asks its own library whether the configuration is sound, and each task and prediction fits it.
CHECK = """
import json, sys
from label_studio_sdk.label_interface import LabelInterface
config, tasks = open(sys.argv[1]).read(), json.load(open(sys.argv[2]))
interface = LabelInterface(config)
interface.validate()
for task in tasks:
    assert interface.validate_task({"data": task["data"]}), task
    for prediction in task["predictions"]:
        assert interface.validate_prediction(prediction), prediction
print(len(tasks))
"""


def environment(folder: Path) -> Path:
    """The folder of an environment with Label Studio, made where there is none."""
    if not (folder / "bin/label-studio").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "label-studio"], check=True)
    return folder


@contextmanager
def server(folder: Path, data: Path) -> Iterator[str]:
    """Label Studio over an empty database, with one person in it."""
    port = free_port()
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "0",
        "LATEST_VERSION_CHECK": "0",
    }
    person = ["--username", WHO, "--password", SECRET, "--user-token", TOKEN]
    process = subprocess.Popen(
        [
            folder / "bin/label-studio",
            "start",
            "--no-browser",
            "--port",
            str(port),
            "--internal-host",
            "127.0.0.1",
            *person,
        ],
        env=own | settings,
        stdout=(data / "server.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((data / "server.log").read_text()[-4000:])
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except (OSError, urllib.error.URLError):
        return False
    return True


def ask(url: str, body: Any = None) -> Any:
    """A request of its API."""
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def round_trip(url: str, tasks: Path, config: Path) -> list[dict[str, Any]]:
    """Import tasks, answer each, and what is exported then."""
    project = ask(
        f"{url}/api/projects", {"title": "spam", "label_config": config.read_text("utf-8")}
    )["id"]
    taken = ask(f"{url}/api/projects/{project}/import", json.loads(tasks.read_text("utf-8")))
    print(f"imported: {taken['task_count']} tasks, {taken['prediction_count']} predictions")
    found = ask(f"{url}/api/tasks?project={project}&page_size=1000&fields=all")["tasks"]
    for number, task in enumerate(sorted(found, key=lambda each: int(each["id"]))):
        said = {"from_name": "label", "to_name": "content", "type": "choices"}
        note = {"from_name": "note", "to_name": "content", "type": "textarea"}
        ask(
            f"{url}/api/tasks/{task['id']}/annotations",
            {
                "result": [
                    {**said, "value": {"choices": [LABELS[number % 3]]}},
                    {**note, "value": {"text": [f"note {number}"]}},
                ]
            },
        )
    exported: list[dict[str, Any]] = ask(
        f"{url}/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"
    )
    return exported


def main() -> None:
    """Go round once, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=Path("/tmp/label-studio"))
    folder = environment(parser.parse_args().environment)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        output = spam_output(data / "labels", {"a.parquet": spam_rows(30, HOSTILE)})
        tasks, config = export_tasks(output, items_of(output), data / "tasks.json")
        checked = subprocess.run(
            [folder / "bin/python", "-c", CHECK, config, tasks],
            check=True,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", name)},
        )
        print(f"its own check takes {checked.stdout.strip()} tasks")
        with server(folder, data) as url:
            exported = round_trip(url, tasks, config)
        answers = data / "answers.json"
        answers.write_text(json.dumps(exported))
        first = import_answers(output, answers, None)
        second = import_answers(output, answers, None)
        print(f"came back: {first.added} answers; once more: {second.added}")
        by_content = {review.content_hash: review for review in kept(data / "labels")}
        for number, task in enumerate(sorted(exported, key=lambda each: int(each["id"]))):
            review = by_content[task["data"]["content_hash"]]
            assert (review.label, review.note) == (LABELS[number % 3], f"note {number}")
            assert review.reviewer in (WHO, "label-studio:1") and review.policy == "spam"
        assert first.added == len(exported) == len(by_content) and second.added == 0
    print("every answer is the one that was given, and none is there twice")


if __name__ == "__main__":
    main()
