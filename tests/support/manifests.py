"""The manifests of k8s/, as `kubectl apply -k` would send them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.pages import ROOT

K8S = ROOT / "k8s"
OVERLAYS = ("dev", "prod")
COMPONENTS = tuple(sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml")))
WORKLOADS = ("Deployment", "Job")


def kubectl() -> str:
    """Return the kubectl of this environment; its wheel is in requirements/dev.lock."""
    beside = Path(sys.executable).parent / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "there is no kubectl beside this Python or on PATH; run `make setup`"
    return found


def with_component(name: str) -> str:
    """Make a folder that adds one component to the base; return its path from k8s/."""
    folder = ROOT / "build" / "k8s" / name
    folder.mkdir(parents=True, exist_ok=True)
    up = Path(os.path.relpath(K8S, folder)).as_posix()
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "leveret",
            "resources": [f"{up}/base"],
            "components": [f"{up}/components/{name}"],
        }
    )
    file = folder / "kustomization.yaml"
    if not file.exists() or file.read_text() != text:
        draft = file.with_name(f"{os.getpid()}.draft")
        draft.write_text(text)
        draft.replace(file)
    return os.path.relpath(folder, K8S)


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
