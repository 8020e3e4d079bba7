"""A middleware that fails when a test wants it to."""

from __future__ import annotations

import dramatiq


class Failing(dramatiq.Middleware):
    """A middleware whose hook fails the first ``times``."""

    def __init__(self, hook, error, times=1):
        self.left = times
        self.error = error
        self.calls = []
        self.hook = hook

    def before_process_message(self, broker, message):
        """Fail, if that is the hook."""
        self._call("before", message)

    def after_process_message(self, broker, message, *, result=None, exception=None):
        """Fail, if that is the hook."""
        self._call("after", message)

    def _call(self, hook, message):
        self.calls.append((hook, message.message_id, message.options["attempt"]))
        if hook == self.hook and self.left:
            self.left -= 1
            raise self.error
