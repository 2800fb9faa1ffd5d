"""`moderay policy new`: a policy that loads, with a word on every key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from moderay.config.policy import POLICY_ID, load_golden
from moderay.core.errors import UserError
from moderay.core.verdicts import CONTENT_HASH, FLAGGED, ROW
from moderay.tasks.init.files import create, filled

# The project's own policy of this name: the one that tiny was trained on, so that a first run shows
# what is meant.
EXAMPLE = "harassment"
_BINARY = """\
  "0": {violates: false, title: Safe}
  "1": {violates: true, title: Violates}"""
_DEGREES = """\
  HA0: {violates: false, title: No harassment}
  HA1: {violates: true, title: Insult or mockery}
  HA3: {violates: true, title: Threat or call for harm}"""
# Other columns of a label file.
RESERVED = (ROW.name, CONTENT_HASH.name, FLAGGED.name)


def new_policy(policy: str, folder: Path) -> list[Path]:
    """Write a policy whose text waits to be written.

    Args:
        policy: Its id.
        folder: Where the policy's own folder, which bears its id, is made.

    Returns:
        Its files.

    Raises:
        UserError: It is no id.
        Problems: There are such files already.
    """
    check_id(policy)
    title = policy.replace("_", " ").capitalize()
    text = filled("blank.md", title=title)
    new = {
        folder / policy / "policy.md": _policy(policy, title, _BINARY, text),
        folder / policy / "golden.jsonl": "",
    }
    create(new)
    load_golden(folder / policy)
    return [*new]


def check_id(policy: str) -> None:
    """Raises `UserError` where no policy may be called so."""
    if not re.fullmatch(POLICY_ID, policy) or policy in RESERVED:
        raise UserError(
            f"{policy!r} is no id of a policy: lower-case letters, digits and _, a letter first, "
            f"and none of {', '.join(RESERVED)}; such as hate_speech"
        )


def example_policy(folder: Path) -> Mapping[Path, str]:
    """The files of a policy that can be used as it is, as an example."""
    text = filled(f"{EXAMPLE}.md")
    return {
        folder / EXAMPLE / "policy.md": _policy(EXAMPLE, "Harassment and threats", _DEGREES, text),
        folder / EXAMPLE / "golden.jsonl": filled(f"{EXAMPLE}.jsonl"),
    }


def _policy(policy: str, title: str, labels: str, text: str) -> str:
    return filled("policy.md", id=policy, title=title, labels=labels, text=text.rstrip())
