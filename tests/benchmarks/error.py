"""The one error that this package raises."""


class BenchmarkError(Exception):
    """A run that cannot be trusted: it says what was expected, what was seen, and where to look."""
