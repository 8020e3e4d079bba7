"""The folders of `tests/releases`: written, and read."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pika

from leveret.store import migrate
from tests.releases import corpus, surface
from tests.releases.corpus import Posted
from tests.support.pages import ROOT

__all__ = [
    "FOLDER",
    "Release",
    "changelog",
    "is_out",
    "releases",
    "removed",
    "texts",
    "this_version",
]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Release:
    """One release, as it was frozen."""

    version: str

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return FOLDER / self.version

    @property
    def is_out(self) -> bool:
        """Whether it has been published, and so is as it is."""
        return is_out(self.version)

    @cached_property
    def surface(self) -> dict[str, dict[str, Any]]:
        """What its users name."""
        return self._load("surface.json")

    @cached_property
    def openapi(self) -> dict[str, Any]:
        """Its HTTP API."""
        return self._load("openapi.json")

    @cached_property
    def topology(self) -> dict[str, Any]:
        """What stands in its broker."""
        return self._load("topology.json")

    @property
    def revision(self) -> str:
        """The revision of its database."""
        return self._load("release.json")["revision"]

    @property
    def database(self) -> str:
        """Its database, as SQL."""
        return (self.folder / "database.sql").read_text()

    @cached_property
    def messages(self) -> list[tuple[Posted, dict[str, Any]]]:
        """Its messages, each with what it read in it."""
        return [
            (
                Posted(
                    name=entry["name"],
                    exchange=entry["exchange"],
                    routing_key=entry["routing_key"],
                    queue=entry["queue"],
                    properties=pika.BasicProperties().decode(base64.b64decode(entry["properties"])),
                    body=base64.b64decode(entry["body"]),
                ),
                entry["read"],
            )
            for entry in self._load("wire.json")["messages"]
        ]

    @cached_property
    def outbox(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Its rows in the outbox, each with what it published for it."""
        return [(entry["row"], entry["read"]) for entry in self._load("wire.json")["outbox"]]

    def _load(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def this_version() -> str:
    """Return the version of this tree."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def changelog() -> str:
    """Return the changelog."""
    return (ROOT / "CHANGELOG.md").read_text()


def is_out(version: str) -> bool:
    """Tell whether a version has been published: then the changelog has its date."""
    section = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    return bool(re.search(section, changelog(), re.MULTILINE))


def releases() -> list[Release]:
    """Return all releases, the oldest first."""
    found = [path.name for path in FOLDER.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return [Release(v) for v in sorted(found, key=lambda v: [int(part) for part in v.split(".")])]


def removed() -> dict[str, dict[str, str]]:
    """Return what was taken away since a release, with what to do instead."""
    return json.loads((FOLDER / "removed.json").read_text())


def texts() -> dict[str, str]:
    """Return the files of this tree's folder that need no database, by name."""
    return {
        "release.json": _json({"version": this_version(), "revision": migrate.head()}),
        "surface.json": _json(surface.collect()),
        "openapi.json": _json(surface.openapi()),
        "topology.json": _json(surface.topology()),
        "wire.json": _json(
            {
                "messages": [
                    {
                        "name": posted.name,
                        "exchange": posted.exchange,
                        "routing_key": posted.routing_key,
                        "queue": posted.queue,
                        "properties": base64.b64encode(corpus.encoded(posted.properties)).decode(),
                        "body": base64.b64encode(posted.body).decode(),
                        "read": corpus.read(_again(posted)),
                    }
                    for posted in corpus.messages()
                ],
                "outbox": [{"row": row, "read": corpus.read_row(row)} for row in corpus.outbox()],
            }
        ),
    }


def _again(posted: Posted) -> Posted:
    """Return a message as its reader gets it."""
    properties = pika.BasicProperties().decode(corpus.encoded(posted.properties))
    return Posted(**{**vars(posted), "properties": properties})


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
