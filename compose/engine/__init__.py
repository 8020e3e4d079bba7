"""A Docker engine of a check's own, with base images that are made here instead of pulled.

For `make image-test` and `make compose-test`: `Engine` starts and ends one, `bases` fills it.
Needs root, and Debian's packages, which it installs. Not for production.
"""

from compose.engine.engine import Engine

__all__ = ["Engine"]
