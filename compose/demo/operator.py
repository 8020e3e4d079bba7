"""What an operator does: look through the HTTP API, replay what is mended, have it audited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from compose.demo.errors import DemoError
from compose.native.service import INHERITED

__all__ = ["Operator", "counted"]

_POLL_SECONDS = 0.1
_REPLAY_SECONDS = 30.0
_ENDING_SECONDS = 15.0


class Operator:
    """Somebody with a key to the API, and with the administrator's settings at a terminal."""

    def __init__(self, url: str, settings: Mapping[str, str], folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        made = json.loads(
            self._leveret("keys", "create", "demo", "--scope", "operate", "--json").stdout
        )
        self._http = httpx.Client(
            base_url=f"{url}/v1",
            headers={"Authorization": f"Bearer {made['token']}"},
            timeout=15.0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def states(self) -> dict[str, str]:
        """Return the state of every job, page by page."""
        return {job["id"]: job["state"] for job in self._pages("/jobs", "jobs")}

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups of dead letters, the largest first."""
        found = self._pages("/dead-letters/groups", "groups")
        return sorted(found, key=lambda group: (-group["open"], group["reason"]))

    def replay(self, fingerprint: str) -> dict[str, Any]:
        """Replay a group, and wait until each of its jobs has its end; return the replay."""
        which = {"fingerprint": fingerprint}
        replay: dict[str, Any] = self._ask("POST", "/replays", {"which": which, "rate": 50})
        end = time.monotonic() + _REPLAY_SECONDS
        while time.monotonic() < end:
            replay = self._ask("GET", f"/replays/{replay['id']}")
            results = replay["results"] or {}
            ended = sum(results.get(name, 0) for name in ("succeeded", "died_again", "other"))
            if replay["state"] != "running" and ended >= replay["published"]:
                break
            time.sleep(_POLL_SECONDS)
        return replay

    def stop_schedule(self, name: str) -> list[dict[str, Any]]:
        """Pause a schedule, wait until its jobs have ended, and return its slots, oldest first."""
        self._ask("POST", f"/schedules/{name}/pause")
        end = time.monotonic() + _ENDING_SECONDS
        while True:
            slots = self._pages(f"/schedules/{name}/slots", "slots")
            if all(slot["job_state"] == "succeeded" for slot in slots) or time.monotonic() > end:
                return slots[::-1]
            time.sleep(_POLL_SECONDS)

    def audit(self) -> dict[str, Any]:
        """Return what `leveret audit` says."""
        answer = self._leveret("audit", "--json", check=False)
        try:
            document: dict[str, Any] = json.loads(answer.stdout)
        except ValueError:
            raise DemoError(f"`leveret audit` failed:\n{answer.stderr}") from None
        return document

    def _pages(self, path: str, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            query = {"limit": "200"} | ({"cursor": cursor} if cursor else {})
            page = self._ask("GET", path, query=query)
            found += page[name]
            cursor = page["next"]
            if cursor is None:
                return found

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        try:
            answer = self._http.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            raise DemoError(f"the API does not answer: {error!r}") from error
        if answer.is_error:
            raise DemoError(f"the API answers {answer.status_code}: {answer.text}")
        return answer.json()

    def _leveret(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name in INHERITED}
        answer = subprocess.run(
            [str(Path(sys.executable).with_name("leveret")), *command],
            env={**inherited, **self._settings},
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and answer.returncode:
            raise DemoError(f"`leveret {' '.join(command)}` failed:\n{answer.stderr}")
        return answer


def counted(states: Mapping[str, str]) -> str:
    """Write how many jobs are in each state."""
    counts = Counter(states.values())
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
