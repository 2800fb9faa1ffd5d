"""Whether a model can be had, and is one that is asked here, before an engine is started."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderay.core.errors import UserError, first_line, nearby, nearest
from moderay.core.storage import shown
from moderay.engines import checkpoint

ARCHITECTURE = "GptOssForCausalLM"
PUBLISHED = (
    "openai/gpt-oss-safeguard-20b",
    "openai/gpt-oss-safeguard-120b",
    "openai/gpt-oss-20b",
    "openai/gpt-oss-120b",
)
# Seconds for which a hub is waited.
HUB_S = 3.0
# Bytes of a config.json; those of published models have some two thousand.
LONGEST_CONFIG = 2**20

_SHOWN = 100
_SOURCES = "a folder, a hub id such as openai/gpt-oss-safeguard-20b, or tiny"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class SourceReport:
    """What was seen of a model's source; all is empty where nothing is wrong with it.

    Attributes:
        problem: Why it cannot be the model.
        hint: What to write instead.
        unseen: Why it could not be looked at from here, so that it may be right elsewhere.
        offline: Whether this machine is not to ask for it either.
    """

    problem: str = ""
    hint: str = ""
    unseen: str = ""
    offline: bool = False


def inspect_source(source: str, revision: str | None) -> SourceReport:
    """Look at a model's source: a folder's files, an object store's, or what a hub says of it.

    Args:
        source: As `model.source` has it.
        revision: Of a hub's model.

    Raises:
        TryAgainError: The store that holds it does not answer.
    """
    try:
        if source == checkpoint.TINY:
            return SourceReport()
        if "://" in source:
            names = checkpoint.stored_names(source)
            return _of_files(shown(source), names, _stored_config(source), None)
        if source.startswith("/") or os.path.isdir(source):
            return _of_folder(Path(source))
    except UserError as error:
        return SourceReport(str(error), _SOURCES)
    return _of_hub(source, revision)


def _of_folder(folder: Path) -> SourceReport:
    name = nearby(str(folder))
    if os.path.isfile(folder):
        return SourceReport(f"the model {name} is a file, not a folder", _SOURCES)
    if not os.path.isdir(folder):
        return SourceReport(f"no such model folder: {name}", _SOURCES)
    try:
        names = [file.name for file in folder.iterdir()]
        config = _file_text(folder / "config.json") if "config.json" in names else None
        index = _file_text(folder / _INDEX) if _INDEX in names else None
    except OSError as error:
        reason = str(error.strerror or error).lower()
        return SourceReport(f"the model folder {name} cannot be read: {reason}", _SOURCES)
    return _of_files(name, names, config, index)


def _file_text(file: Path) -> str:
    """A small file of a model.

    Raises:
        UserError: It is no ordinary file, or too large for what it should be.
    """
    details = file.stat()
    if not stat.S_ISREG(details.st_mode):
        raise UserError(f"{nearby(str(file))} is no ordinary file")
    longest = LONGEST_CONFIG * (64 if file.name == _INDEX else 1)
    if details.st_size > longest:
        raise UserError(f"{nearby(str(file))} has {details.st_size:,} bytes, which no model's has")
    return file.read_bytes().decode("utf-8", errors="replace")


def _stored_config(source: str) -> str:
    size = checkpoint.stored_size(source, "config.json")
    if size > LONGEST_CONFIG:
        raise UserError(f"{shown(source)}/config.json has {size:,} bytes, which no model's has")
    return checkpoint.text(source, "config.json") or ""


def _of_files(
    name: str, names: Iterable[str], config: str | None, index: str | None
) -> SourceReport:
    """Of a folder by the names of its files, its config and its list of weights."""
    there = set(names)
    if config is None:
        what = "is empty" if not there else "holds no config.json"
        return SourceReport(f"{name} holds no model: it {what}", _SOURCES)
    if (wrong := _wrong_config(name, config)) is not None:
        return wrong
    if not any(file.endswith(".safetensors") for file in there):
        return SourceReport(f"{name} holds no weights: *.safetensors are needed", _SOURCES)
    if missing := sorted(_weights(index) - there):
        return SourceReport(
            f"{name} is not whole: {len(missing)} of its files of weights are missing, such as "
            f"{missing[0]}",
            "fetch it again",
        )
    return SourceReport()


def _weights(index: str | None) -> set[str]:
    """The files that a checkpoint of several is made of; none where it has no list of them."""
    try:
        listed = json.loads(index or "{}").get("weight_map", {})
        return {str(name) for name in listed.values()}
    except (ValueError, AttributeError, RecursionError):
        return set()


def _wrong_config(name: str, text: str) -> SourceReport | None:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        return SourceReport(f"{name} holds no model: its config.json is no JSON object", _SOURCES)
    return _wrong_architecture(name, config)


def _wrong_architecture(name: str, config: dict[str, Any]) -> SourceReport | None:
    """Of another architecture than gpt-oss: its answers would not be harmony's."""
    architectures = config.get("architectures")
    kinds = architectures if isinstance(architectures, list) else []
    if ARCHITECTURE in kinds:
        return None
    what = (
        ", ".join(map(str, kinds[:3]))[:_SHOWN] or config.get("model_type") or "of no architecture"
    )
    return SourceReport(
        f"{name} is no gpt-oss model: its config says {what}, and {ARCHITECTURE} is asked here",
        "gpt-oss-safeguard, or a checkpoint that was trained from it",
    )


def _of_hub(source: str, revision: str | None) -> SourceReport:
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415  half a second
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415  half a second

    try:
        kept = try_to_load_from_cache(source, "config.json", revision=revision)
    except HFValidationError:
        return SourceReport(f"{source[:_SHOWN]!r} is no folder, and no hub id", _SOURCES)
    if isinstance(kept, str):
        return _wrong_config(source, _file_text(Path(kept).resolve())) or SourceReport()
    near = "" if source in PUBLISHED else _near(source)
    if constants.HF_HUB_OFFLINE:
        return SourceReport(
            unseen=f"{source} is no folder here and not in this machine's cache, and as "
            "HF_HUB_OFFLINE is set, the hub is not asked for it",
            hint=near,
            offline=True,
        )
    return _within(HUB_S, lambda: _asked_hub(source, revision, near)) or SourceReport(
        unseen=f"the hub was asked for {source} and did not answer within {HUB_S:g} s", hint=near
    )


def _near(source: str) -> str:
    hint = nearest(source, PUBLISHED)
    return hint if hint.startswith("did you mean") else ""


def _asked_hub(source: str, revision: str | None, near: str) -> SourceReport:
    """What a hub says of a model."""
    from huggingface_hub import HfApi  # noqa: PLC0415  half a second
    from huggingface_hub.errors import (  # noqa: PLC0415  half a second
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(source, revision=revision, timeout=HUB_S)
    except GatedRepoError:
        return SourceReport(
            f"the hub gives {source} to those only who have agreed to its terms",
            "agree to them on its page, and set HF_TOKEN",
        )
    except RevisionNotFoundError:
        return SourceReport(f"{source} has no revision {revision!r} on the hub", "see its commits")
    except RepositoryNotFoundError:
        token = "one of a private model: set HF_TOKEN"
        return SourceReport(
            f"{source} is no folder here, and the hub has no model of this name that may be read "
            "from here",
            f"{near or _SOURCES}; {token}",
        )
    except Exception as error:  # the library's, httpx's and the system's, of any kind
        reason = first_line(error)
        return SourceReport(unseen=f"the hub could not be asked for {source} ({reason})", hint=near)
    config = info.config or {}
    known = "architectures" in config
    return (_wrong_architecture(source, config) if known else None) or SourceReport()


def _within(seconds: float, look: Callable[[], SourceReport]) -> SourceReport | None:
    """What `look` gives; None where it takes longer, as a name server that is away makes it."""
    reports: list[SourceReport] = []
    thread = threading.Thread(target=lambda: reports.append(look()), daemon=True)
    thread.start()
    thread.join(seconds)
    return reports[0] if reports else None
