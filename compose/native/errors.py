"""What can go wrong with the stack."""


class StackError(Exception):
    """The stack cannot be started or stopped; the message names the remedy."""
