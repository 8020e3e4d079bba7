"""``python -m leveret``: the command ``leveret``, where only modules can be run."""

from leveret.cli import main

if __name__ == "__main__":
    main()
