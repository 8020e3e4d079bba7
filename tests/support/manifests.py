"""The manifests of k8s/, as `kubectl apply -k` would send them."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.pages import ROOT

K8S = ROOT / "k8s"
OVERLAYS = ("dev", "prod")
WORKLOADS = ("Deployment", "Job")


def kubectl() -> str:
    """Return the kubectl of this environment; its wheel is in requirements/dev.lock."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "there is no kubectl beside this Python or on PATH; run `make setup`"
    return found


@functools.cache
def rendered(folder: str) -> str:
    """Return what `kubectl kustomize` makes of a folder of k8s/."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(K8S / folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kustomize warns: {done.stderr}"
    return done.stdout


@functools.cache
def objects(folder: str) -> list[dict[str, Any]]:
    """Return the objects of a folder of k8s/; they are shared, and not to be changed."""
    return [one for one in yaml.load_all(rendered(folder), yaml.CSafeLoader) if one is not None]


def overlay(name: str) -> list[dict[str, Any]]:
    """Return the objects of an overlay."""
    return objects(f"overlays/{name}")


def of_kind(found: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    """Return the objects of these kinds by name."""
    return {one["metadata"]["name"]: one for one in found if one["kind"] in kinds}


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    """Return the specification of a workload's pods."""
    return workload["spec"]["template"]["spec"]


def container(workload: dict[str, Any]) -> dict[str, Any]:
    """Return the one container of a workload's pods."""
    [only] = pod(workload)["containers"]
    return only


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the YAML documents of a file."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]
