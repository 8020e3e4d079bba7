"""The whole stack on one machine: with Docker Compose, or natively from this machine's packages.

Not part of the wheel. `make up` and `make down` are its door; `compose.native` is the native half.
"""
