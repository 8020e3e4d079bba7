"""Tell Kubernetes how busy each worker pod is, so that it takes idle ones away first.

When a Deployment becomes smaller, its ReplicaSet deletes pods of the lowest `pod-deletion-cost`
first. A worker could set its own only with the right to change pods, and Kubernetes cannot grant
that for one pod alone: every job could change every pod. So one process does it for all, which
runs no jobs: it reads `leveret_jobs_in_progress` of each pod and writes the annotation.

The cost is the number of running jobs in bands (0, 1, 2 to 3, 4 to 7, …), and is written only
when the band changes, since every change is a write to the API server. It is a hint, some seconds
old: what makes it safe to take any pod is that workers drain.

It needs nothing but Python's standard library.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

#: Where Kubernetes mounts what a pod needs to talk to it.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
SELECTOR = "leveret.dev/pool"
METRIC = "leveret_jobs_in_progress"
EVERY_SECONDS = 15.0
_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A running pod of a pool."""

    name: str
    address: str
    port: int
    #: What the annotation says now.
    cost: str | None


def band(jobs: float) -> str:
    """Return the cost of a pod with so many running jobs: the number of binary digits."""
    return str(max(0, int(jobs)).bit_length())


def jobs_in(metrics: str) -> float:
    """Add up the running jobs in a page of metrics."""
    values = (line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith(METRIC))
    return sum(map(float, values))


def pods_in(listing: Mapping[str, Any]) -> Iterator[Pod]:
    """Return the pods of a list that run, and are not on their way out."""
    for item in listing["items"]:
        metadata, status = item["metadata"], item["status"]
        if status.get("phase") != "Running" or not status.get("podIP"):
            continue
        if metadata.get("deletionTimestamp"):
            continue
        for port in item["spec"]["containers"][0].get("ports", []):
            if port.get("name") == "http":
                yield Pod(
                    name=metadata["name"],
                    address=status["podIP"],
                    port=port["containerPort"],
                    cost=metadata.get("annotations", {}).get(ANNOTATION),
                )


class Cluster:
    """The API server, as far as this process may use it: list pods and annotate them."""

    def __init__(self, address: str, account: Path = ACCOUNT) -> None:
        self._account = account
        namespace = (account / "namespace").read_text().strip()
        self._pods = f"{address}/api/v1/namespaces/{namespace}/pods"
        authority = account / "ca.crt"
        self._context = None
        if address.startswith("https:"):
            self._context = ssl.create_default_context(cafile=str(authority))

    def pods(self) -> list[Pod]:
        """Return the running pods of all pools."""
        answer = self._ask("GET", f"{self._pods}?labelSelector={quote(SELECTOR)}")
        return list(pods_in(json.loads(answer)))

    def annotate(self, pod: Pod, cost: str) -> None:
        """Write the cost of a pod."""
        patch = {"metadata": {"annotations": {ANNOTATION: cost}}}
        self._ask("PATCH", f"{self._pods}/{pod.name}", json.dumps(patch).encode())

    def _ask(self, method: str, url: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - our own
        # The token is renewed in place.
        request.add_header("Authorization", f"Bearer {(self._account / 'token').read_text()}")
        if body is not None:
            request.add_header("Content-Type", "application/merge-patch+json")
        with urllib.request.urlopen(  # noqa: S310
            request, timeout=_TIMEOUT_SECONDS, context=self._context
        ) as answer:
            content: bytes = answer.read()
            return content


def look(cluster: Cluster) -> int:
    """Bring the annotations up to date; return how many were changed.

    A pod that does not answer keeps what it has.
    """
    changed = 0
    for pod in cluster.pods():
        try:
            cost = band(jobs_in(_metrics_of(pod)))
            if cost != (pod.cost or "0"):
                cluster.annotate(pod, cost)
                changed += 1
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"deletion-cost: {pod.name}: {error}", file=sys.stderr, flush=True)
    return changed


def _metrics_of(pod: Pod) -> str:
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    url = f"http://{host}:{pod.port}/metrics"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
        content: bytes = answer.read()
        return content.decode()


def main() -> int:
    """Look every 15 s until SIGTERM."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    cluster = Cluster(f"https://{f'[{host}]' if ':' in host else host}:{port}")
    while not over.wait(EVERY_SECONDS):
        try:
            look(cluster)
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"deletion-cost: {error}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
