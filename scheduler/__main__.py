"""``python -m scheduler``."""

from __future__ import annotations

import sys

from leveret import logs
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from leveret.tracing import process
from scheduler.scheduler import Scheduler


def main() -> int:
    """Run the scheduler; the exit status is 0 after SIGTERM, 2 when misconfigured."""
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level, settings.log_format)
        with process.exporting("scheduler"):
            return Scheduler(settings).run()
    except ConfigurationError as error:
        print(f"leveret scheduler: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
