"""Images and manifests: they run what the README says, and their parts agree."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import yaml

from bench.cli import main

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MANIFEST = ROOT / "examples" / "cluster" / "kuberay-job.yaml"


def test_images_run_the_first_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)[0]
    command = shlex.split(first.split("&&")[-1])
    assert command[0] == "bench"
    commands = [json.loads(each) for each in re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)]
    assert commands == [command, command]
    last = DOCKERFILE.strip().splitlines()[-1]
    assert last == f"CMD {json.dumps(command)}"


def test_images_are_built_of_what_the_package_needs() -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert kept == {
        *("bench", "submissions"),  # the packages
        *("setup.cfg", "pyproject.toml", "README.md", "LICENSE"),  # what describes them
    }
    assert all((ROOT / each).exists() for each in kept)
    # No stage runs as root.
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    run = [each for each in stages if "CMD [" in each]
    assert [re.search(r"AS (\w+)", each)[1] for each in run] == ["cpu", "cuda"]  # type: ignore[index]
    assert all(each.rindex("USER 1000") > each.rindex("RUN ") for each in run)


def test_the_rayjob_names_what_there_is() -> None:
    claim, job = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= JOB_FIELDS
    assert set(cluster) <= CLUSTER_FIELDS
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert all(
        isinstance(each, str) for each in cluster["headGroupSpec"]["rayStartParams"].values()
    )
    pods = [cluster["headGroupSpec"]["template"], workers["template"]]
    pods.append(job["spec"]["submitterPodTemplate"])
    containers = [each for pod in pods for each in pod["spec"]["containers"]]
    assert len({each["image"] for each in containers}) == 1
    for each in containers:
        assert each["resources"]["requests"].keys() == each["resources"]["limits"].keys()
    (head,) = pods[0]["spec"]["containers"]
    (volume,) = pods[0]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = head["volumeMounts"]
    assert mount["name"] == volume["name"]
    words = shlex.split(job["spec"]["entrypoint"])
    folders = _options(words[1:])
    assert all(Path(each).is_relative_to(mount["mountPath"]) for each in folders)
    assert len(folders) == 4
    assert words[words.index("--executor") + 1] == "ray"
    assert pods[1]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def _options(words: list[str]) -> list[str]:
    """Return the folders that the words of a command name; all of its options exist."""
    command: Any = main.get_command(click.Context(main), words[0])
    known = {each for parameter in command.params for each in parameter.opts}
    assert {each for each in words if each.startswith("--")} <= known
    return [after for word, after in itertools.pairwise(words) if word.endswith("-dir")]


JOB_FIELDS = {
    *("activeDeadlineSeconds", "backoffLimit", "entrypoint", "metadata", "rayClusterSpec"),
    *("shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate"),
    "ttlSecondsAfterFinished",
}
"""Fields of `spec` that KubeRay's RayJob (ray.io/v1) has, as far as they are of use here."""
CLUSTER_FIELDS = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec"),
    *("rayVersion", "workerGroupSpecs"),
}
"""The same of `rayClusterSpec`."""
