"""A job as what KubeRay runs it from: a RayJob, or a RayCronJob, and its files in ConfigMaps.

The image holds the package; everything else that a run reads here goes with the manifest and is
mounted on the head, where the driver is: workers get what they need of it from the driver. The
cluster is that of raycluster.yaml, fitted to the job.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from moderay.config import bounded_yaml
from moderay.config.job import Job, Replicas
from moderay.core.errors import UserError, first_line
from moderay.engines.from_job import engine_spec
from moderay.tasks.submit.config_maps import ConfigMap, Manifest, config_maps, labels_of
from moderay.tasks.submit.cron import checked_cron
from moderay.tasks.submit.manifest_yaml import to_yaml

CLUSTER = Path(__file__).parent / "raycluster.yaml"

# Where the files lie on the head, and which of them is the job file.
FOLDER = "/etc/moderay"
JOB = "job.yaml"
# Characters of a name. KubeRay takes 47 of a RayJob's, and a RayCronJob adds a time stamp to its
# own.
NAME_LENGTH = 36
# Seconds that the pods stay after the end, so that somebody can look at Ray's logs.
KEPT_S = 600
# Times a job is started again on a new cluster after its head was lost (or its run ended with an
# exit status, which KubeRay cannot tell from it). What is saved is not judged again. A scheduled
# one is not started again: its next run goes on from there.
RESTARTS = 2


@dataclass(frozen=True)
class KubeRayOptions:
    """What a person may say beyond the job.

    Attributes:
        run: Options of `moderay run`.
        cron: Minute, hour, day, month, weekday, in UTC, of a RayCronJob. None: a RayJob.
        cluster: File with a RayCluster's manifest.
        image: Image of every pod. None: the cluster's.
    """

    run: Sequence[str] = ()
    cron: str | None = None
    cluster: Path = CLUSTER
    image: str | None = None


def manifests(
    job: Job, files: Mapping[str, bytes | Path], options: KubeRayOptions | None = None
) -> str:
    """YAML for `kubectl apply --server-side -f -`.

    Args:
        job: Its paths must be URLs or those of volumes.
        files: All that it reads on this machine, by path relative to `job.yaml`, which is one of
            them.
        options: What a person says beyond it.

    Raises:
        UserError: A file is too large; the schedule or the cluster's manifest is wrong.
    """
    options = options or KubeRayOptions()
    name = _name(job.name)
    schedule = None if options.cron is None else checked_cron(options.cron)
    configs = list(config_maps(name, files))
    template = _job_template(job, configs, options)
    if schedule is None:
        kind = "RayJob"
        spec = {**template, "backoffLimit": RESTARTS}
    else:
        kind = "RayCronJob"
        spec = {"schedule": schedule, "timeZone": "Etc/UTC", "jobTemplate": template}
    resource = {
        "apiVersion": "ray.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels_of(name)},
        "spec": spec,
    }
    return to_yaml([*[config.manifest for config in configs], resource])


def load_cluster(file: Path = CLUSTER) -> Manifest:
    """A RayCluster's manifest. Raises `UserError` where the file is none."""
    try:
        manifest = bounded_yaml.load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{file}: cannot be read as the manifest of a RayCluster ({first_line(error)})"
        ) from None
    try:
        groups = [manifest["spec"]["headGroupSpec"], *manifest["spec"]["workerGroupSpecs"]]
        images = [group["template"]["spec"]["containers"][0]["image"] for group in groups]
    except (KeyError, IndexError, TypeError):
        images = []
    if len(images) < 2 or manifest.get("kind") != "RayCluster":
        raise UserError(
            f"{file}: no RayCluster whose head and workers name an image; begin with a copy of "
            "infra/raycluster.yaml"
        )
    return dict(manifest)


def _job_template(job: Job, configs: Sequence[ConfigMap], options: KubeRayOptions) -> Manifest:
    """What RayJob and RayCronJob share."""
    cluster = _fitted(job, load_cluster(options.cluster)["spec"], options.image)
    _mount(cluster["headGroupSpec"]["template"]["spec"], configs)
    return {
        "entrypoint": shlex.join(["moderay", "run", f"{FOLDER}/{JOB}", *options.run]),
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": _submitter(cluster["headGroupSpec"]["template"]["spec"]),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_S,
        "rayClusterSpec": cluster,
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


def _fitted(job: Job, cluster: Manifest, image: str | None) -> Manifest:
    """A copy of a cluster's spec with as many workers and GPUs as the job asks for.

    Of several worker groups the first is fitted, and the others stay as they are.
    """
    spec: Manifest = copy.deepcopy(cluster)
    gpus = 0 if job.model.source == "tiny" else engine_spec(job, gpus=1).gpus
    groups = spec["workerGroupSpecs"]
    _fit_workers(groups[0], job.model.replicas, gpus)
    for group in (spec["headGroupSpec"], *groups):
        ray = group["template"]["spec"]["containers"][0]
        ray["image"] = image or (ray["image"] if gpus else re.sub("-gpu$", "-cpu", ray["image"]))
    return spec


def _fit_workers(group: Manifest, replicas: int | Replicas | None, gpus: int) -> None:
    """A pod for each engine. Without GPUs (tiny, an endpoint) none are asked for."""
    if isinstance(replicas, Replicas):
        group |= {
            "replicas": replicas.min,
            "minReplicas": replicas.min,
            "maxReplicas": replicas.max,
        }
    elif replicas is not None:
        group |= {"replicas": replicas, "minReplicas": replicas, "maxReplicas": replicas}
    resources = group["template"]["spec"]["containers"][0].setdefault("resources", {})
    for kind in ("requests", "limits"):
        resources.setdefault(kind, {}).pop("nvidia.com/gpu", None)
        if gpus:
            resources[kind]["nvidia.com/gpu"] = str(gpus)


def _mount(pod: Manifest, configs: Sequence[ConfigMap]) -> None:
    """Put a job's files into the head's pod."""
    ray = pod["containers"][0]
    pod["volumes"] = [
        *pod.get("volumes", ()),
        {"name": "job", "projected": {"sources": [config.source() for config in configs]}},
    ]
    ray["volumeMounts"] = [
        *ray.get("volumeMounts", ()),
        {"name": "job", "mountPath": FOLDER, "readOnly": True},
    ]


def _name(text: str) -> str:
    """A DNS label that begins with `moderay-`."""
    slug = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or "job"
    return f"moderay-{slug.removeprefix('moderay-')}"[:NAME_LENGTH].rstrip("-")
