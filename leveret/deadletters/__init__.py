"""Dead letters: looked through, replayed at a rate, or discarded.

The recorder stores them; `leveret.deadletters.query` reads, `leveret.deadletters.replay` decides,
and `leveret.deadletters.runner` publishes again what was decided.
"""

from leveret.deadletters.replay import (
    cancel_replay,
    create_replay,
    discard,
    get_replay,
    results,
)
from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState, ReplayState

__all__ = [
    "LetterState",
    "ReplayState",
    "Selection",
    "cancel_replay",
    "create_replay",
    "discard",
    "get_replay",
    "results",
]
