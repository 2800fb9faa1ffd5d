"""Review items as tasks of Label Studio, with the labeling configuration beside them.

A task's `data` says which content it is of, so that its answers find their way back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from moderay.core.errors import UserError
from moderay.core.storage import plain_errors
from moderay.tasks.output_contents import FoundContent
from moderay.tasks.review.contents import content_of
from moderay.tasks.review.items import Item
from moderay.tasks.review.output import ReviewedOutput, ReviewPolicy
from moderay.tasks.review.verdicts import ModelVerdict, verdict_of

# Names of the labeling configuration's parts, to which answers refer.
LABEL, NOTE, CONTENT = "label", "note", "content"


def export_tasks(output: ReviewedOutput, items: Sequence[Item], file: Path) -> tuple[Path, Path]:
    """Write the tasks, and the configuration under the same name with .xml.

    Args:
        output: That is reviewed.
        items: Of one policy.
        file: For the tasks, ending in .json.

    Returns:
        The two files.

    Raises:
        UserError: There is nothing to export, or items are of several policies.
    """
    if file.suffix != ".json":
        raise UserError(f"--export {file}: a name that ends in .json is wanted")
    if not items:
        raise UserError("no content is in these queues: name others with --queue")
    policies = sorted({item.key.policy for item in items})
    if len(policies) > 1:
        raise UserError(
            f"--export writes tasks of one policy, since each has labels of its own: name one of "
            f"{', '.join(policies)} with --policy"
        )
    policy = output.policies[policies[0]]
    read = [(item, content_of(output, item)) for item in items]
    shown = [(item, content) for item, content in read if not content.missing]
    if not shown:
        raise UserError(f"no content can be read: {read[0][1].missing}")
    as_turns = any(content.turns for _, content in shown)
    tasks = [
        _task(policy, item, content, as_turns, verdict_of(output, item)) for item, content in shown
    ]
    beside = file.with_suffix(".xml")
    with plain_errors(str(file)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        beside.write_text(labeling_config(policy, as_turns), encoding="utf-8")
    return file, beside


def labeling_config(policy: ReviewPolicy, as_turns: bool) -> str:
    """The labeling configuration of a policy.

    Args:
        policy: Whose labels are the choices.
        as_turns: Whether tasks hold conversations.
    """
    view = ET.Element("View")
    title = f"{policy.title or policy.id}, version {policy.version}"
    ET.SubElement(view, "Header", value=title)
    if as_turns:
        keys = {"nameKey": "role", "textKey": "content", "layout": "dialogue"}
        ET.SubElement(view, "Paragraphs", {"name": CONTENT, "value": "$turns", **keys})
    else:
        ET.SubElement(view, "Text", name=CONTENT, value="$text")
    choices = ET.SubElement(
        view, "Choices", name=LABEL, toName=CONTENT, choice="single", required="true"
    )
    for name, label in policy.labels.items():
        side = "violates" if label.violates else "safe"
        ET.SubElement(choices, "Choice", value=name, hint=f"{label.title or name} ({side})")
    ET.SubElement(
        view, "TextArea", name=NOTE, toName=CONTENT, maxSubmissions="1", placeholder="Note"
    )
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def _task(
    policy: ReviewPolicy,
    item: Item,
    content: FoundContent,
    as_turns: bool,
    verdict: ModelVerdict | None,
) -> dict[str, Any]:
    data = {
        **({"turns": _turns(content)} if as_turns else {"text": content.text or ""}),
        "kind": "conversation" if content.turns else "text",
        "policy": policy.id,
        "policy_hash": policy.hash,
        "content_hash": item.key.content_hash,
        "shard": item.shard,
        "row": item.row,
        "queue": item.queue,
        **({} if item.plan is None else {"plan": item.plan}),
    }
    said = [] if verdict is None or verdict.label is None else [_prediction(verdict)]
    return {"data": data, "predictions": said}


def _turns(content: FoundContent) -> list[dict[str, str]]:
    """A conversation's turns; a text among conversations is one turn."""
    if not content.turns:
        return [{"role": "", "content": content.text or ""}]
    return [{"role": turn.role, "content": turn.content} for turn in content.turns]


def _prediction(verdict: ModelVerdict) -> Mapping[str, Any]:
    """The model's verdict; its score is how sure it was of the side it took."""
    choice = {
        "from_name": LABEL,
        "to_name": CONTENT,
        "type": "choices",
        "value": {"choices": [verdict.label]},
    }
    made: dict[str, Any] = {"model_version": "moderay", "result": [choice]}
    if verdict.probability is not None:
        p = verdict.probability
        made["score"] = round(p if verdict.violates else 1 - p, 4)
    return made
