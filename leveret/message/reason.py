"""Why a job is refused, or given up."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """Why a job is a dead letter; stable words for headers, labels and filters."""

    UNREADABLE_HEADER = "unreadable-header"
    BAD_PROPERTY = "bad-property"
    BAD_HEADER = "bad-header"
    BAD_CONTENT_TYPE = "bad-content-type"
    TOO_LARGE = "too-large"
    TOO_DEEP = "too-deep"
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    BAD_ENVELOPE = "bad-envelope"
    UNKNOWN_ACTOR = "unknown-actor"
    BAD_ARGUMENTS = "bad-arguments"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    WORKER_KILLED = "worker-killed"
    NO_DATABASE = "no-database"
