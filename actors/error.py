"""What can go wrong in the actors of this package, by what should follow from it.

::

    LeveretError
    └── ActorError
        ├── ActorArgumentError   the job can never work as it was asked     dead at once
        ├── RefusedError         the other side has said no for good        dead at once
        ├── ActorSettingsError   the worker is not set up for the job       retried
        └── UnavailableError     the other side cannot do it now            retried

A wrong setting is retried because an operator can correct it while the job waits.
"""

from __future__ import annotations

from leveret.errors import LeveretError

__all__ = [
    "DEAD_ON",
    "RETRY_ON",
    "ActorArgumentError",
    "ActorError",
    "ActorSettingsError",
    "RefusedError",
    "UnavailableError",
]


class ActorError(LeveretError):
    """Base of the errors that the actors of this package raise themselves."""


class ActorArgumentError(ActorError):
    """The job's arguments, or the data they name, can never work."""


class ActorSettingsError(ActorError):
    """A ``LEVERET_*`` variable that the actor needs is missing or wrong."""


class RefusedError(ActorError):
    """The other side has refused the job for good."""


class UnavailableError(ActorError):
    """The other side cannot do the job now.

    ``retry_after`` is the number of seconds that it asked to be left alone, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


#: Dead at once, whatever is retried.
DEAD_ON: tuple[type[Exception], ...] = (ActorArgumentError, RefusedError)
#: Network, disk and settings: what may have passed by the next attempt.
RETRY_ON: tuple[type[Exception], ...] = (UnavailableError, ActorSettingsError, OSError)
