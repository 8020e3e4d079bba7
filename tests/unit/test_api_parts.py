"""Parts of the HTTP API that need nothing: limits on failures, refusals, pointers, keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from leveret.arguments import Signature
from leveret.store.api_keys import Key, Scope, parse
from services.api.authentication import Refusals
from services.api.failures import FailureLimit, block_of


def test_a_client_may_fail_so_often_in_a_window():
    """Then it waits for the rest of the window, and may fail again."""
    limit = FailureLimit(allowed=3, window_seconds=60)
    for second in range(3):
        assert limit.wait_seconds("a", None, float(second)) == 0
        limit.failed("a", float(second))
    assert limit.wait_seconds("a", None, 10.0) == 50
    assert limit.wait_seconds("b", None, 10.0) == 0
    assert limit.wait_seconds("a", None, 60.0) == 0
    limit.failed("a", 60.0)
    assert limit.wait_seconds("a", None, 61.0) == 0


def test_a_key_that_was_right_is_let_through():
    """Whoever else knocks from the same address."""
    limit = FailureLimit(allowed=1)
    limit.succeeded("good")
    limit.failed("a", 0.0)
    assert limit.wait_seconds("a", "good", 1.0) == 0
    assert limit.wait_seconds("a", "other", 1.0) > 0


def test_an_attacker_with_many_addresses_fills_no_memory():
    """The clients that are remembered are bounded, and so are the refusals."""
    limit, refusals = FailureLimit(remembered=100), Refusals(remembered=100, most=10)
    written = 0
    for number in range(10_000):
        limit.failed(str(number), 0.0)
        limit.succeeded(str(number))
        written += bool(refusals.due(str(number), "authenticate", 0.0))
    assert len(limit._failures) == len(limit._good) == 100
    assert len(refusals._written) <= 100
    assert written == 10


def test_refusals_of_a_kind_are_written_once_in_a_while_with_their_number():
    """What was left out is counted into the next."""
    refusals = Refusals(every_seconds=60)
    assert [refusals.due("a", "job.publish", float(n)) for n in range(5)] == [1, 0, 0, 0, 0]
    assert refusals.due("a", "job.cancel", 5.0) == 1
    assert refusals.due("a", "job.publish", 61.0) == 5


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_one_client_is_one_block_of_addresses(address, block):
    """An IPv6 host may have any address of its /64."""
    assert block_of(address) == block


class Item(BaseModel):
    """A part of an argument."""

    sku: str


def act(to: str | list[str], items: dict[str, Item] | None = None, *, n: int = 0) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("arguments", "pointers"),
    [
        ({"to": "a"}, []),
        ({}, ["/to"]),
        ({"to": 1}, ["/to", "/to"]),
        ({"to": ["a", 1]}, ["/to", "/to/1"]),
        ({"to": "a", "n": "x"}, ["/n"]),
        ({"to": "a", "items": {"x/y": {"sku": 1}}}, ["/items/x~1y/sku"]),
        ({"to": "a", "items": {"x": {}}}, ["/items/x/sku"]),
        ({"to": "a", "~": 1}, ["/~0"]),
    ],
)
def test_faults_point_into_the_arguments(arguments: dict[str, Any], pointers):
    """Also through unions, whose members are no part of the document."""
    found = Signature(act, "act").faults(arguments)
    assert sorted(fault.pointer for fault in found) == sorted(pointers)


def test_scopes_include_each_other_as_told():
    """Publishing is included in none."""

    def opens(scope: Scope) -> set[str]:
        key = Key(
            id="0" * 12,
            name="x",
            scopes=(scope,),
            created_at=datetime.now(UTC),
            created_by="test",
        )
        return {str(other) for other in Scope if key.may(other)}

    assert opens(Scope.PUBLISH) == {"publish"}
    assert opens(Scope.READ) == {"read"}
    assert opens(Scope.OPERATE) == {"read", "operate"}
    assert opens(Scope.ADMIN) == {"read", "operate", "admin"}


def test_a_key_ends_by_revocation_or_at_its_time():
    """To the moment."""
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "id": "0" * 12,
        "name": "x",
        "scopes": (Scope.READ,),
        "created_at": now,
        "created_by": "test",
    }
    assert Key(**fields).fault(now) is None
    assert Key(**fields, expires_at=now).fault(now) == "expired"
    assert Key(**fields, expires_at=now + timedelta(seconds=1)).fault(now) is None
    assert Key(**fields, revoked_at=now).fault(now) == "revoked"


@pytest.mark.parametrize("token", ["", "lv_", "lv_0_0", f"lv_{0:012}_{'G' * 64}", "x" * 9])
def test_what_is_no_key_is_seen_without_asking(token):
    """By its form."""
    assert parse(token) is None
