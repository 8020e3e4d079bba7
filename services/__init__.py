"""The long-running processes, one folder each. Run from the source tree; never in the wheel."""
