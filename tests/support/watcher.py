"""A server of Prometheus' family, of one test: its process, its log, and its end."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from compose.native import ports
from tests.support.promtool import program
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Watcher:
    """A private server on a port of its own; end it with `close`, or as a context manager.

    Skips the test where the program cannot be had.
    """

    def __init__(
        self, name: str, folder: Path, configuration: str, options: Sequence[str], *, port: int
    ) -> None:
        """Start ``name``, in a new folder in ``folder``, and wait until it is ready."""
        self.port = port
        self.url = f"http://{ports.HOST}:{port}"
        self._name = name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.yml"
        file.write_text(configuration)
        self._log = folder / "log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    program(name),
                    f"--config.file={file}",
                    f"--storage.{'tsdb.' if name == 'prometheus' else ''}path={folder / 'data'}",
                    f"--web.listen-address={ports.HOST}:{port}",
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._is_ready, timeout=60, every=0.05, what=f"{name} is ready")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and return when it is gone."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(20)

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self._name} has ended with {self.process.returncode}: {self.log}")
        return ports.status(self.port, "/-/ready") == HTTPStatus.OK
