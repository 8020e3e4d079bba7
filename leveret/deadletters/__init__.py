"""Dead letters: looked through, replayed at a rate, or discarded.

The recorder stores them; `leveret.deadletters.query` reads, `leveret.deadletters.replay` decides,
and `leveret.deadletters.runner` publishes again what was decided.
"""

from leveret.deadletters.query import Group, History, Letter, LetterLine, Replay, Results, results
from leveret.deadletters.query import replay as get_replay
from leveret.deadletters.replay import cancel_replay, create_replay, discard
from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState, ReplayState

__all__ = [
    "Group",
    "History",
    "Letter",
    "LetterLine",
    "LetterState",
    "Replay",
    "ReplayState",
    "Results",
    "Selection",
    "cancel_replay",
    "create_replay",
    "discard",
    "get_replay",
    "results",
]
