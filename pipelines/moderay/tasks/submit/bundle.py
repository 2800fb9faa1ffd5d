"""A job made ready for another machine: one archive with all that it reads on this one.

In it are the job file, all that this names here, and this package. What stays behind: the model,
the input and the output, which the job names by URL, hub id or absolute path; and secrets, which
belong in the environment of those who need them.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from moderay.config.job import SCRIPTED, Job
from moderay.config.job_file import Draft, draft_document, read_document
from moderay.core.errors import Problems, UserError
from moderay.core.hashing import digest
from moderay.engines.from_job import engine_spec
from moderay.judges.build import cascades, fitted
from moderay.pipeline.gate import gated_policies
from moderay.tasks.submit.portability import note_what_stays_here

JOB = "job.yaml"
# Bytes of an archive: it goes through the memory of the cluster's head and onto every node.
MOST_BYTES = 100 * 2**20
# Stands for the night of a scheduled job while the job is checked here. No corpus is of these days.
_SOME_NIGHT = {"DATE": "0001-01-02", "YESTERDAY": "0001-01-01"}
# The earliest time that a zip can say.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Shipment:
    """A job with the files that it needs on another machine.

    Attributes:
        job: As it was read and checked here, its paths those of this machine.
        files: By name in the archive, their bytes or where they lie; `job.yaml` among them, which
            names the others.
    """

    job: Job
    files: Mapping[str, bytes | Path]

    @property
    def output(self) -> str:
        """The output in one form, and without a user's name.

        What is shipped twice to the same output is the same work.
        """
        protocol, separator, path = self.job.output.path.rpartition("://")
        return f"{'s3' if protocol == 's3a' else protocol}{separator}{posixpath.normpath(path)}"

    @property
    def name(self) -> str:
        """What its submissions are called, a number apart.

        The job's name is for people, the output's hash for certainty.
        """
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", self.job.name).strip("-") or "job"
        return f"{name}-{digest(self.output)[:8]}"

    def write(self, archive: Path) -> None:
        """Write the archive, a zip.

        Of equal files it has the same bytes, so that a cluster that has them is not sent them
        again.

        Raises:
            UserError: It is too large.
        """
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as into:
            for name, content in sorted(self.files.items()):
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                into.writestr(entry, content.read_bytes() if isinstance(content, Path) else content)
            largest = max(into.infolist(), key=lambda entry: entry.compress_size)
        if (size := archive.stat().st_size) > MOST_BYTES:
            raise UserError(
                f"what the job names here is {size / 2**20:,.0f} MiB, and at most "
                f"{MOST_BYTES / 2**20:.0f} can be shipped: the largest is "
                f"{largest.filename} with {largest.compress_size / 2**20:,.0f}; take it out of "
                "the policy's or screen's folder"
            )

    def unpack(self, folder: Path) -> Path:
        """Write the files into a folder, but for this package's own.

        Returns:
            The job file there.
        """
        for name, content in self.files.items():
            if not name.startswith("moderay/"):
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        return folder / JOB


def ship(file: str | Path, sets: Sequence[str] = (), scheduled: bool = False) -> Shipment:
    """Read and check a job file, as far as that can be done without its input.

    Variables are filled in here, those of `storage:` on the cluster, from the environment there.

    Args:
        file: The job file.
        sets: `key=value`, as of `--set`.
        scheduled: Whether it runs again and again, so that DATE and YESTERDAY are filled in on the
            cluster too: each run has its own.

    Raises:
        Problems: With everything wrong.
        UserError: A policy's or a judge's folder would ship files of elsewhere.
    """
    path = Path(file)
    document = read_document(path, sets, keep=("storage",), days=_SOME_NIGHT if scheduled else None)
    note_what_stays_here(document, path.parent.resolve())
    draft = draft_document(document, path, elsewhere=True)
    if draft.job is None or draft.problems:
        raise Problems(draft.problems)
    _check_judges(draft.job, draft)
    if out_of_reach := gated_policies(draft.job, draft.policies)[1]:
        raise Problems(out_of_reach)
    data = draft.job.model_dump(mode="json", exclude_unset=True)
    files = {**_shipped(data, draft), **_package()}
    if draft.job.limits.until is not None:
        # Local time is this machine's.
        data["limits"]["until"] = draft.job.limits.until.astimezone().isoformat()
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    if scheduled:
        for name, day in _SOME_NIGHT.items():
            text = text.replace(day, f"${{{name}}}")
    return Shipment(draft.job, {**files, JOB: text.encode()})


def _check_judges(job: Job, draft: Draft) -> None:
    """Rules, screens and bands. Raises `Problems`.

    Not where the model is a folder or a URL: what the checks hash of it is not here.
    """
    if "://" in job.model.source or job.model.source.startswith("/"):
        return
    spec = engine_spec(job, gpus=0)
    made, problems = cascades(job, draft.policies, spec)
    if problems:
        raise Problems(problems)
    fitted(spec, made)


def _shipped(data: dict[str, Any], draft: Draft) -> dict[str, bytes | Path]:
    """The files that a job names on this machine, by their names in the archive.

    In `data`, the job's keys and values, these names take the paths' place. Raises `UserError`.
    """
    files: dict[str, bytes | Path] = {}
    for number, (folder, policy) in enumerate(zip(data["policies"], draft.policies, strict=True)):
        data["policies"][number] = f"policies/{policy.id}"
        files |= _named_folder(Path(folder), f"policies/{policy.id}")
    for number, step in enumerate(data.get("cascade", ())):
        for judge, args in step.items():
            if args and args.get("path"):
                files |= _named_folder(Path(args["path"]), f"cascade/{number}-{judge}")
                args["path"] = f"cascade/{number}-{judge}"
    model = data.get("model", {})
    if model.get("source", "").startswith(SCRIPTED):
        files["script.yaml"] = Path(model["source"].removeprefix(SCRIPTED))
        model["source"] = f"{SCRIPTED}script.yaml"
    return files


def _named_folder(folder: Path, name: str) -> dict[str, bytes | Path]:
    """As `_folder`, of a folder that somebody else may have written.

    Raises:
        UserError: A link in it would ship a file that lies elsewhere on this machine.
    """
    files = _folder(folder, name)
    for file in files.values():
        if isinstance(file, Path) and folder.resolve() not in file.resolve().parents:
            raise UserError(
                f"{file} is a link that leads out of its folder, to {file.resolve()}, which would "
                "be shipped: put the file itself there, or remove the link"
            )
    return files


def _folder(folder: Path, name: str) -> dict[str, bytes | Path]:
    """A folder's files, by their names in the archive; what is hidden stays here."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return {
        f"{name}/{file}": folder / file
        for file in files
        if not any(part.startswith(".") for part in file.parts)
    }


def _package() -> dict[str, bytes | Path]:
    package = _folder(Path(str(resources.files("moderay"))), "moderay")
    return {name: file for name, file in package.items() if "__pycache__" not in name}
