"""``python -m services.relay``."""

from __future__ import annotations

import sys

from leveret import logs
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from leveret.tracing import process
from services.relay.relay import Relay


def main() -> int:
    """Run the relay; the exit status is 0 after SIGTERM, 2 when misconfigured."""
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level, settings.log_format)
        with process.exporting("relay"):
            return Relay(settings).run()
    except ConfigurationError as error:
        print(f"leveret relay: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
