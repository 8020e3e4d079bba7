"""An actor that does nothing with whatever it is given."""

import leveret


@leveret.actor("echo.say")
def say(n: int, text: str = "") -> int:
    """Return how much it was given."""
    return n + len(text)
