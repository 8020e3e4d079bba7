"""``python -m services.worker``."""

from __future__ import annotations

import sys

from leveret import logs
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from services.worker.launcher import Launcher
from services.worker.options import parse


def main() -> int:
    """Run the worker pool; the exit status is 0 after a drain, 2 when misconfigured."""
    try:
        settings = Settings.from_env()
        options = parse(sys.argv[1:], settings)
        settings.require_amqp_url()
        logs.configure(settings.log_level, settings.log_format)
        return Launcher(options).run()
    except ConfigurationError as error:
        print(f"leveret worker: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
