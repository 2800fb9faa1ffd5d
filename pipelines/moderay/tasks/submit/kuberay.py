"""A job -> what KubeRay runs it from: a RayJob, or a RayCronJob, and the job's files in ConfigMaps.

The image holds the package; everything else that a run reads here goes with the manifest and is
mounted on the head, where the driver is: workers get what they need of it from the driver. The
cluster is that of raycluster.yaml, fitted to the job.
"""

from __future__ import annotations

import base64
import copy
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moderay.config.job import Job, Replicas
from moderay.core.errors import UserError, first_line
from moderay.core.hashing import digest
from moderay.engines.from_job import engine_spec

CLUSTER = Path(__file__).parent / "raycluster.yaml"

# Where the files lie on the head, and which of them the run is given.
FOLDER, JOB = "/etc/moderay", "job.yaml"
# Bytes of one ConfigMap: Kubernetes takes 1 MiB of keys and values.
CONFIG_BYTES = 1_000_000
# Characters of a name. KubeRay takes 47 of a RayJob's, and a RayCronJob adds a time stamp to its
# own.
NAME_LENGTH = 36
# Seconds that the pods stay after the end, so that somebody can look at Ray's logs.
KEPT_S = 600
# Times a job is started again on a new cluster after its head was lost (or its run ended with an
# exit status, which KubeRay cannot tell from it). What is saved is not judged again. A scheduled
# one is not started again: its next run goes on from there.
RESTARTS = 2

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """A ConfigMap, and by key the path of its file below `FOLDER`."""

    manifest: Manifest
    paths: Mapping[str, str]

    def source(self) -> Manifest:
        """As a volume takes it."""
        items = [{"key": key, "path": path} for key, path in self.paths.items()]
        return {"configMap": {"name": self.manifest["metadata"]["name"], "items": items}}


def manifests(
    job: Job,
    files: Mapping[str, bytes | Path],
    *,
    cron: str | None = None,
    options: Sequence[str] = (),
    cluster: Path = CLUSTER,
    image: str | None = None,
) -> str:
    """YAML for `kubectl apply --server-side -f -`.

    `files`: all that the job reads on this machine, by path relative to `job.yaml`, which is one of
    them; a job's own paths must be URLs or those of volumes. `cron`: minute, hour, day, month,
    weekday, in UTC. `options`: for `moderay run`. `cluster`: a RayCluster's manifest. `image`:
    instead of the one it names. Raises `UserError` for a file too large, a schedule or a manifest
    that is wrong.
    """
    name, schedule = _name(job.name), None if cron is None else checked_cron(cron)
    configs = list(_configs(name, files))
    spec = _ray_job(job, configs, load_cluster(cluster)["spec"], options, image)
    if schedule is None:
        kind, spec = "RayJob", {**spec, "backoffLimit": RESTARTS}
    else:
        kind, spec = (
            "RayCronJob",
            {"schedule": schedule, "timeZone": "Etc/UTC", "jobTemplate": spec},
        )
    made = {
        "apiVersion": "ray.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": spec,
    }
    return yaml.dump_all(
        [*[config.manifest for config in configs], made],
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=160,
    )


def load_cluster(file: Path = CLUSTER) -> Manifest:
    """A RayCluster's manifest. Raises `UserError` where the file is none."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{file}: cannot be read as the manifest of a RayCluster ({first_line(error)})"
        ) from None
    try:
        groups = [found["spec"]["headGroupSpec"], *found["spec"]["workerGroupSpecs"]]
        images = [group["template"]["spec"]["containers"][0]["image"] for group in groups]
    except (KeyError, IndexError, TypeError):
        images = []
    if len(images) < 2 or found.get("kind") != "RayCluster":
        raise UserError(
            f"{file}: no RayCluster whose head and workers name an image; begin with a copy of "
            "infra/raycluster.yaml"
        )
    return dict(found)


def checked_cron(schedule: str) -> str:
    """A schedule as KubeRay reads it. Raises `UserError`."""
    fields = schedule.split()
    if len(fields) != len(_CRON):
        raise UserError(
            f"--cron {schedule!r}: five fields are wanted (minute, hour, day, month, weekday), "
            "such as '0 2 * * *' for every night at two"
        )
    for field, (title, low, high, names) in zip(fields, _CRON, strict=True):
        if not all(_cron_part(part, low, high, names) for part in field.split(",")):
            raise UserError(
                f"--cron {schedule!r}: {field!r} is no {title}: numbers from {low} to {high}, *, "
                "ranges 1-5, steps */10, lists 1,3"
            )
    return " ".join(fields)


_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()
# Title, lowest, highest, and names in that order. Sunday is 0, and 7 is no day.
_CRON: Sequence[tuple[str, int, int, Sequence[str]]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _DAYS),
)


def _cron_part(part: str, low: int, high: int, names: Sequence[str]) -> bool:
    match = re.fullmatch(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", part, re.ASCII)
    if match is None or (match[3] is not None and not 1 <= int(match[3]) <= high):
        return False
    numbers = [
        low + names.index(word.lower())
        if word.lower() in names
        else int(word)
        if word.isdecimal()
        else -1
        for word in match.groups()[:2]
        if word
    ]
    return all(low <= number <= high for number in numbers) and numbers == sorted(numbers)


def _ray_job(
    job: Job,
    configs: Sequence[Config],
    cluster: Manifest,
    options: Sequence[str],
    image: str | None,
) -> Manifest:
    """What RayJob and RayCronJob share."""
    fitted = _fitted(job, configs, cluster, image)
    return {
        "entrypoint": shlex.join(["moderay", "run", f"{FOLDER}/{JOB}", *options]),
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": _submitter(fitted["headGroupSpec"]["template"]["spec"]),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_S,
        "rayClusterSpec": fitted,
    }


def _submitter(head: Manifest) -> Manifest:
    """The pod that hands in the job and shows its log: as little privileged as the head."""
    rights = {name: head[name] for name in ("securityContext",) if name in head}
    ray = head["containers"][0]
    kept = {
        name: ray[name] for name in ("image", "imagePullPolicy", "securityContext") if name in ray
    }
    container = {
        "name": "ray-job-submitter",
        **kept,
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
    }
    return {"spec": {"restartPolicy": "Never", **rights, "containers": [container]}}


def _fitted(job: Job, configs: Sequence[Config], cluster: Manifest, image: str | None) -> Manifest:
    """The cluster's spec with as many workers and GPUs as the job asks for, and its files on the
    head. Of several worker groups the first is fitted, and the others stay as they are.
    """
    spec: Manifest = copy.deepcopy(cluster)
    gpus = 0 if job.model.source == "tiny" else engine_spec(job, gpus=1).gpus
    head, groups = spec["headGroupSpec"], spec["workerGroupSpecs"]
    _fit_workers(groups[0], job.model.replicas, gpus)
    for group in (head, *groups):
        ray = group["template"]["spec"]["containers"][0]
        ray["image"] = image or (ray["image"] if gpus else re.sub("-gpu$", "-cpu", ray["image"]))
    pod, ray = head["template"]["spec"], head["template"]["spec"]["containers"][0]
    pod["volumes"] = [
        *pod.get("volumes", ()),
        {"name": "job", "projected": {"sources": [config.source() for config in configs]}},
    ]
    ray["volumeMounts"] = [
        *ray.get("volumeMounts", ()),
        {"name": "job", "mountPath": FOLDER, "readOnly": True},
    ]
    return spec


def _fit_workers(group: Manifest, replicas: int | Replicas | None, gpus: int) -> None:
    """A pod for each engine. Without GPUs (tiny, an endpoint) none are asked for."""
    fewest, most = (
        (replicas.min, replicas.max) if isinstance(replicas, Replicas) else (replicas, replicas)
    )
    if fewest is not None:
        group |= {"replicas": fewest, "minReplicas": fewest, "maxReplicas": most}
    resources = group["template"]["spec"]["containers"][0].setdefault("resources", {})
    for kind in ("requests", "limits"):
        resources.setdefault(kind, {}).pop("nvidia.com/gpu", None)
        if gpus:
            resources[kind]["nvidia.com/gpu"] = str(gpus)


def _configs(name: str, files: Mapping[str, bytes | Path]) -> Iterator[Config]:
    """ConfigMaps, as few as hold the files."""
    held: dict[str, bytes] = {}
    for path, content in sorted(files.items()):
        data = content.read_bytes() if isinstance(content, Path) else content
        if len(data) > CONFIG_BYTES:
            raise UserError(
                f"{path} has {len(data) / 2**20:.1f} MiB, and a ConfigMap takes 1: make it "
                "smaller, or start infra/raycluster.yaml and submit with --address"
            )
        if held and sum(map(len, held.values())) + len(data) > CONFIG_BYTES:
            yield _config(name, held)
            held = {}
        held[path] = data
    yield _config(name, held)


def _config(name: str, files: Mapping[str, bytes]) -> Config:
    """Text as text, for people who review it. The name has the hash of what is in it: a run that
    goes on, or begins at night, finds what it was submitted with, whatever has been submitted
    since.
    """
    paths = _keys(files)
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, path in paths.items():
        try:
            text[key] = files[path].decode("utf-8")
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(files[path]).decode()
    metadata = {"name": f"{name}-{digest([text, binary, paths])[:8]}", "labels": _labels(name)}
    held = {"data": text, "binaryData": binary}
    return Config(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "immutable": True,
            **{k: v for k, v in held.items() if v},
        },
        paths,
    )


def _keys(paths: Iterable[str]) -> dict[str, str]:
    """Paths by what a ConfigMap takes for a key: no slash, and not two the same."""
    found: dict[str, str] = {}
    for path in paths:
        key = re.sub("[^A-Za-z0-9._-]", "_", path)[-200:]
        found[f"{key}-{len(found)}" if key in found else key] = path
    return found


def _name(text: str) -> str:
    """A DNS label that begins with `moderay-`."""
    slug = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or "job"
    return f"moderay-{slug.removeprefix('moderay-')}"[:NAME_LENGTH].rstrip("-")


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "moderay", "app.kubernetes.io/instance": name}


class _Dumper(yaml.SafeDumper):
    """Several lines as a block and nothing by reference, for people; strings that are strings in
    every YAML, for Kubernetes.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Strings that Kubernetes' YAML would read as something else, though Python's would not, and their
# neighbours: 1e3, 0o7, y.
_LIKE_OTHERS = re.compile(r"[-+.]?\d|[yn]$", re.IGNORECASE)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if _LIKE_OTHERS.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)
