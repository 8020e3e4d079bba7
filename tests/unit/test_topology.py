"""The topology table, routed by hand; and what differs from it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret import names, wheel
from leveret.topology import ROLES, build, compare, compare_permissions, roles_for
from leveret.topology.declare import inside_out
from leveret.topology.table import DELIVERY_LIMIT

ACTORS = {"email.send": "default", "report.generate": "bulk", "a": "critical"}
TABLE = build(names.DEFAULT_QUEUES, ACTORS)
UNITS = st.integers(0, wheel.RADIX**wheel.DIGITS - 1)
QUEUES = {queue.name: queue for queue in TABLE.queues}
EXCHANGES = {exchange.name: exchange for exchange in TABLE.exchanges}


def matches(pattern, words):
    """Tell whether a topic binding's words match a key's, as AMQP has it."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


def fits(kind, pattern, key):
    """Tell whether a binding of an exchange of this kind takes a key."""
    match kind:
        case "fanout":
            return True
        case "direct":
            return pattern == key
    return matches(pattern.split("."), key.split("."))


def route(exchange, key):
    """Return the queues that a message reaches, each once, as the broker does it."""
    reached, queues, seen = [exchange], set(), set()
    while reached:
        name = reached.pop()
        if name in seen:
            continue
        seen.add(name)
        bound = [
            b for b in TABLE.bindings if b.source == name and fits(EXCHANGES[name].kind, b.key, key)
        ]
        queues |= {b.destination for b in bound if not b.to_exchange}
        reached += [b.destination for b in bound if b.to_exchange]
        if not bound and EXCHANGES[name].alternate:
            reached.append(EXCHANGES[name].alternate)
    return queues


def journey(exchange, key):
    """Follow a delayed message: the time it waits, the queues it passes, and where it ends."""
    waited, passed = timedelta(0), []
    queues = route(exchange, key) - {names.LEDGER}
    while True:
        assert len(queues) == 1, (key, queues)
        (queue,) = queues
        ttl = QUEUES[queue].arguments.get("x-message-ttl")
        if ttl is None:
            return waited, passed, queue
        passed.append(queue)
        waited += timedelta(milliseconds=ttl)
        queues = route(QUEUES[queue].arguments["x-dead-letter-exchange"], key)


@settings(max_examples=150, deadline=None)
@given(UNITS, st.sampled_from(names.DEFAULT_QUEUES), st.sampled_from([names.DELAY, names.RETRY]))
def test_every_delay_passes_exactly_its_digits_and_ends_in_its_queue(units, queue, entry):
    """One queue for each digit that is not zero, in order, and their times are the delay."""
    key = f"{wheel.digits_of(units)}.{queue}.email.send"
    waited, passed, end = journey(entry, key)
    assert end == names.work_queue(queue)
    assert waited == units * wheel.UNIT
    symbols = wheel.digits_of(units).split(".")
    assert passed == [
        names.wheel_queue(wheel.DIGITS - 1 - place, int(symbol, 16))
        for place, symbol in enumerate(symbols)
        if symbol != "0"
    ]


@settings(max_examples=50, deadline=None)
@given(UNITS, st.sampled_from(sorted(ACTORS)))
def test_a_delayed_job_for_any_queue_ends_in_its_actors_queue(units, actor):
    """The routing table has the last word when the delay is over."""
    assert journey(names.DELAY, f"{wheel.digits_of(units)}.any.{actor}")[2] == names.work_queue(
        ACTORS[actor]
    )


@settings(max_examples=50, deadline=None)
@given(UNITS, st.sampled_from(["any.no.body", "elsewhere.email.send", "any", "DEFAULT.x"]))
def test_a_delayed_job_for_nobody_ends_among_the_unroutable(units, key):
    """It is not lost, and does not block the queue it waited in."""
    assert journey(names.DELAY, f"{wheel.digits_of(units)}.{key}")[2] == names.UNROUTABLE


@settings(max_examples=100, deadline=None)
@given(st.text("0123456789abcdefg.*#", max_size=24))
def test_any_key_at_all_ends_in_some_queue(key):
    """Whatever a client writes in front of its job, the delay exchange keeps the job."""
    waited, _, end = journey(names.DELAY, key)
    assert end in QUEUES
    assert waited <= wheel.HORIZON


@pytest.mark.parametrize("queue", names.DEFAULT_QUEUES)
def test_a_job_for_a_queue_reaches_it_and_the_ledger(queue):
    """Whoever published it, the ledger sees it."""
    wanted = {names.work_queue(queue), names.LEDGER}
    assert route(names.JOBS, f"{queue}.email.send") == wanted
    assert route(names.JOBS, queue) == wanted


@pytest.mark.parametrize(("actor", "queue"), ACTORS.items())
def test_a_job_for_any_queue_reaches_the_actors_one_alone(actor, queue):
    """`any.<actor>` is one binding."""
    assert route(names.JOBS, f"any.{actor}") == {names.work_queue(queue), names.LEDGER}


@pytest.mark.parametrize("key", ["", "any", "any.", "any.no.body", "nowhere.email.send", "#", "*"])
def test_a_key_that_nobody_wants_is_kept_among_the_unroutable(key):
    """No job vanishes for want of a binding."""
    assert route(names.JOBS, key) == {names.UNROUTABLE, names.LEDGER}


@pytest.mark.parametrize("exchange", [names.DEAD, names.QUARANTINE])
def test_a_dead_letter_has_a_place_even_when_its_queue_is_unknown(exchange):
    """What a rejected job goes through has an alternate exchange."""
    assert route(exchange, "default") == {f"{exchange}.default"}
    assert route(exchange, "no-such-queue") == {names.UNROUTABLE}


def test_what_makes_loss_impossible_is_an_argument_of_every_queue_that_lets_go():
    """Quorum; and at-least-once with reject-publish wherever messages are dead-lettered."""
    for queue in TABLE.queues:
        assert queue.arguments["x-queue-type"] == "quorum", queue.name
        if "x-dead-letter-exchange" in queue.arguments:
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once", queue.name
            assert queue.arguments["x-overflow"] == "reject-publish", queue.name
            assert queue.arguments["x-dead-letter-exchange"] in EXCHANGES, queue.name
    for queue in names.DEFAULT_QUEUES:
        arguments = QUEUES[names.work_queue(queue)].arguments
        assert arguments["x-delivery-limit"] == DELIVERY_LIMIT
        assert arguments["x-dead-letter-routing-key"] == queue


def test_only_the_ledger_may_shed_and_it_is_bounded():
    """It never blocks a publish."""
    shedding = [q.name for q in TABLE.queues if q.arguments.get("x-overflow") == "drop-head"]
    assert shedding == [names.LEDGER]
    assert QUEUES[names.LEDGER].arguments["x-max-length-bytes"] > 0


def test_every_binding_joins_things_that_are_declared():
    """And nothing is declared or bound twice."""
    for binding in TABLE.bindings:
        assert binding.source in EXCHANGES
        assert binding.destination in (EXCHANGES if binding.to_exchange else QUEUES)
    assert len(set(TABLE.bindings)) == len(TABLE.bindings)
    assert len(QUEUES) == len(TABLE.queues)
    assert len(EXCHANGES) == len(TABLE.exchanges)


def test_moving_an_actor_changes_its_bindings_and_nothing_else():
    """One new binding at each of the two ends, and the old ones revoked."""
    moved = build(names.DEFAULT_QUEUES, {**ACTORS, "email.send": "bulk"})
    assert (moved.queues, moved.exchanges) == (TABLE.queues, TABLE.exchanges)
    new, old = set(moved.bindings) - set(TABLE.bindings), set(TABLE.bindings) - set(moved.bindings)
    assert {b.destination for b in new} == {"leveret.bulk"}
    assert {b.source for b in new} == {names.ROUTE, names.DUE}
    assert old <= set(moved.revoked)
    assert not set(moved.revoked) & set(moved.bindings)


def test_an_actor_on_a_queue_that_is_not_configured_is_refused_with_the_remedy():
    """The message names the actor, the queue and the setting."""
    with pytest.raises(ValueError, match=r"'video\.cut'.*'gpu'.*LEVERET_QUEUES"):
        build(names.DEFAULT_QUEUES, {"video.cut": "gpu"})


# ------------------------------------------------------------------------------------ the roles


def may(role, permission, name):
    """Tell whether a role's regular expression covers a name."""
    return re.search(getattr(ROLES[role], permission), name) is not None


KEY = st.from_regex(r"\A[a-z]{1,8}(\.[a-z_]{1,8}){0,4}\Z")


@given(UNITS, st.sampled_from([*names.DEFAULT_QUEUES, names.ANY_QUEUE]), KEY)
def test_publishers_may_use_every_key_of_the_contract_and_no_other(units, queue, rest):
    """Queue or `any`, with seven digits in front on the delay exchange, and only there."""
    topics = ROLES["publisher"].topics
    now, later = f"{queue}.{rest}", f"{wheel.digits_of(units)}.{queue}.{rest}"
    assert re.search(topics[names.JOBS], now)
    assert re.search(topics[names.DELAY], later)
    assert not re.search(topics[names.JOBS], later)
    assert not re.search(topics[names.DELAY], now)
    assert not re.search(topics[names.DELAY], later[2:])
    assert not re.search(topics[names.JOBS], f"x{queue}.{rest}")


def test_nobody_but_the_admin_declares_and_workers_only_their_control_queue():
    """Processes declare nothing."""
    everything = [*EXCHANGES, *QUEUES, "amq.topic", "x"]
    for role in ROLES:
        for name in everything:
            assert may(role, "configure", name) == (role == "admin" and name.startswith("leveret."))
    assert may("worker", "configure", "leveret.control.w-1")
    assert not may("worker", "configure", "leveret.control")
    assert not may("worker", "configure", "leveret.control.a.b")


def test_the_worker_reads_work_and_writes_what_follows_from_it():
    """Neither dead letters nor the ledger nor the wheel's inside are its to read or write."""
    reads = {name for name in [*QUEUES, *EXCHANGES] if may("worker", "read", name)}
    assert reads == {
        *map(names.work_queue, names.DEFAULT_QUEUES),
        *map(names.quarantine_queue, names.DEFAULT_QUEUES),
        names.CONTROL,
    }
    writes = {name for name in [*QUEUES, *EXCHANGES] if may("worker", "write", name)}
    assert writes == {
        names.JOBS, names.DELAY, names.RETRY, names.OUTCOMES, names.DEAD, names.QUARANTINE
    }  # fmt: skip


def test_the_publisher_writes_to_the_two_entries_alone():
    """It reads nothing, and cannot pass by the ledger."""
    for role in ("publisher", "relay"):
        assert {n for n in EXCHANGES if may(role, "write", n)} == {names.JOBS, names.DELAY}
        assert not may(role, "write", "")
        assert not any(may(role, "read", name) for name in [*QUEUES, *EXCHANGES])


def test_the_recorder_reads_the_ledger_and_all_dead_letters():
    """And writes nothing."""
    reads = {name for name in QUEUES if may("recorder", "read", name)}
    assert reads == {
        names.LEDGER, names.UNROUTABLE, *map(names.dead_queue, names.DEFAULT_QUEUES)
    }  # fmt: skip
    assert not any(may("recorder", "write", name) for name in [*QUEUES, *EXCHANGES])


def test_roles_follow_the_configured_queues():
    """A queue of one's own is part of the patterns."""
    roles = roles_for(["gpu"])
    assert re.search(roles["worker"].read, "leveret.gpu")
    assert not re.search(roles["worker"].read, "leveret.default")
    assert re.search(roles["publisher"].topics[names.JOBS], "gpu.video.cut")


# ------------------------------------------------------------------------------------- the drift


def as_found():
    """Write the table as the management API would list it."""
    return {
        "exchanges": [
            {"name": e.name, "type": e.kind, "durable": True, "arguments": dict(e.arguments)}
            for e in TABLE.exchanges
        ],
        "queues": [
            {"name": q.name, "durable": True, "arguments": dict(q.arguments)} for q in TABLE.queues
        ],
        "bindings": [
            {
                "source": b.source,
                "destination": b.destination,
                "destination_type": "exchange" if b.to_exchange else "queue",
                "routing_key": b.key,
            }
            for b in TABLE.bindings
        ],
        "policies": [{"name": p.name} for p in TABLE.policies],
    }


def test_what_is_as_the_table_has_it_is_no_difference():
    """Nor are things of others, and workers' control queues."""
    found = as_found()
    found["exchanges"].append({"name": "amq.topic", "type": "topic", "durable": True})
    found["queues"].append({"name": "theirs", "durable": False})
    found["queues"].append({"name": "leveret.control.w1", "durable": False})
    found["bindings"].append(
        {
            "source": "",
            "destination": "leveret.default",
            "destination_type": "queue",
            "routing_key": "leveret.default",
        }
    )
    found["bindings"].append(
        {
            "source": "leveret.control",
            "destination": "leveret.control.w1",
            "destination_type": "queue",
            "routing_key": "",
        }
    )
    assert compare(TABLE, **found) == []


@given(st.data())
def test_every_missing_thing_is_reported_by_name(data):
    """Take any one object away, and exactly it is missing."""
    found = as_found()
    kind = data.draw(st.sampled_from(sorted(found)))
    thing = found[kind].pop(data.draw(st.integers(0, len(found[kind]) - 1)))
    (difference,) = compare(TABLE, **found)
    assert difference.kind == "missing"
    assert thing.get("name", thing.get("destination")) in str(difference)


@given(st.data())
def test_every_changed_argument_is_reported_with_both_values(data):
    """A queue with another argument is different, and the report says how."""
    found = as_found()
    queue = data.draw(st.sampled_from(found["queues"]))
    argument = data.draw(st.sampled_from(sorted(queue["arguments"])))
    queue["arguments"][argument] = "changed"
    (difference,) = compare(TABLE, **found)
    assert difference.kind == "different"
    assert queue["name"] in difference.what
    assert argument in difference.detail
    assert "'changed'" in difference.detail


def test_surplus_is_reported_and_a_surplus_binding_can_be_named():
    """The difference carries the binding, so that it can be pruned."""
    found = as_found()
    found["queues"].append({"name": "leveret.old", "durable": True, "arguments": {}})
    found["exchanges"].append({"name": "leveret.older", "type": "topic", "durable": True})
    found["bindings"].append(
        {
            "source": "leveret.route",
            "destination": "leveret.bulk",
            "destination_type": "queue",
            "routing_key": "any.email.send",
        }
    )
    differences = compare(TABLE, **found)
    assert [(d.kind, d.what) for d in differences] == [
        ("unexpected", "binding leveret.route -> leveret.bulk"),
        ("unexpected", "exchange leveret.older"),
        ("unexpected", "queue leveret.old"),
    ]
    assert differences[0].binding.key == "any.email.send"
    assert "any.email.send" in str(differences[0])


def as_granted():
    """Write the roles' permissions as `Management` tells them."""
    return {
        "permissions": [
            {"user": r.user, "configure": r.configure, "write": r.write, "read": r.read}
            for r in ROLES.values()
        ],
        "topic_permissions": {
            r.user: {exchange: (write, ".*") for exchange, write in r.topics.items()}
            for r in ROLES.values()
        },
    }


def wrong(**changed):
    """Compare, with these in place of the right ones, and write what differs."""
    found = compare_permissions(ROLES.values(), **{**as_granted(), **changed})
    return [str(difference) for difference in found]


def test_permissions_as_the_roles_have_them_are_no_difference():
    """Nor are those of others, and users that are not used here."""
    permissions = as_granted()["permissions"]
    other = {"user": "theirs", "configure": ".*", "write": ".*", "read": ".*"}
    assert wrong(permissions=[*permissions, other]) == []
    assert wrong(permissions=[], topic_permissions={}) == []


@pytest.mark.parametrize(
    ("user", "exchange"), [(r.user, e) for r in ROLES.values() for e in r.topics]
)
def test_a_topic_permission_that_is_missing_or_different_is_reported(user, exchange):
    """Without one, a user publishes any routing key."""
    where = f"topic permission of {user} on {exchange}"
    found = as_granted()["topic_permissions"]
    del found[user][exchange]
    assert wrong(topic_permissions=found) == [f"missing: {where} (it may publish any routing key)"]
    found[user][exchange] = ("^any$", ".*")
    (line,) = wrong(topic_permissions=found)
    assert line.startswith(f"different: {where} (wanted ")
    assert line.endswith("found '^any$')")


def test_a_surplus_topic_permission_is_reported():
    """It may keep a process from its work."""
    found = as_granted()["topic_permissions"]
    found["leveret-recorder"]["leveret.jobs"] = ("^$", ".*")
    assert wrong(topic_permissions=found) == [
        "unexpected: topic permission of leveret-recorder on leveret.jobs (only '^$')"
    ]


@pytest.mark.parametrize("right", ["configure", "write", "read"])
def test_every_permission_that_differs_is_reported_with_both_values(right):
    """Too much is as wrong as too little."""
    permissions = as_granted()["permissions"]
    number, role = next((n, r) for n, r in enumerate(ROLES.values()) if r.name == "api")
    permissions[number][right] = ".*"
    (line,) = wrong(permissions=permissions)
    values = f"wanted {getattr(role, right)!r}, found '.*'"
    assert line == f"different: permissions of leveret-api ({right}: {values})"


def test_an_exchange_is_declared_behind_all_that_it_hands_messages_to():
    """It can be bound at once, and what it cannot route is not lost on a first day either."""
    order = [exchange.name for exchange in inside_out(TABLE)]
    assert sorted(order) == sorted(EXCHANGES)
    bound = {(b.source, b.destination) for b in TABLE.bindings if b.to_exchange}
    bound |= {(x.name, x.alternate) for x in TABLE.exchanges if x.alternate}
    assert len(bound) > 10
    for source, destination in bound:
        assert order.index(destination) < order.index(source)
