"""The relay on a real broker and real databases: what is committed arrives, in every shape."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pika
import psycopg
import pytest

from leveret import names, outbox, wheel
from leveret.message import Job, decode
from services.relay.table import READY, RELEASED
from tests.support.databases import temporary_database
from tests.support.relays import RelayProcess, lay_out, waiting
from tests.support.waiting import wait_until
from tests.support.workers import Letter

QUEUE = names.work_queue("bulk")


@pytest.fixture(scope="module")
def databases(checkout):
    """Return two databases with outboxes: a shop's, and a bank's."""
    with temporary_database(checkout, "shop") as shop, temporary_database(checkout, "bank") as bank:
        yield lay_out(shop), lay_out(bank)


@pytest.fixture(scope="module")
def relay(vhost, databases, tmp_path_factory):
    """Return a relay for both, with the privileges of its role."""
    made = RelayProcess(vhost, *databases, folder=tmp_path_factory.mktemp("relay"))
    yield made.wait_ready()
    made.kill()


@pytest.fixture(autouse=True)
def empty(databases):
    """Begin each test with empty outboxes."""
    for url in databases:
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM leveret_outbox")


@pytest.fixture
def channel(vhost):
    """Return a channel of the owner on empty queues."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.amqp_url))
    found = connection.channel()
    for queue in (*map(names.work_queue, names.DEFAULT_QUEUES), names.UNROUTABLE):
        found.queue_purge(queue)
    yield found
    connection.close()


def take(channel, count=1, queue=QUEUE, timeout=30.0, *, again=False):
    """Take so many messages from a queue; there must be no more.

    Where the broker refuses one, those under way beside it may come ``again``, under their ids.
    """
    found = []
    ids = set()
    deadline = time.monotonic() + timeout
    for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.1):
        if method is not None:
            if not (again and properties.message_id in ids):
                found.append(Letter(body, properties, method.routing_key))
            ids.add(properties.message_id)
        elif len(found) >= count or time.monotonic() > deadline:
            break
    channel.cancel()
    assert len(found) == count
    return found


def insert(url, **columns):
    """Insert a row as somebody does who knows only SQL."""
    names_ = ", ".join(columns)
    values = ", ".join(f"%({name})s" for name in columns)
    with psycopg.connect(url) as connection:
        found = connection.execute(
            f"INSERT INTO leveret_outbox ({names_}) VALUES ({values}) RETURNING id", columns
        ).fetchone()
    return found[0]


def state_of(url, row):
    """Return when a row is looked at again, and its error; None when it is gone."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT hold_until::text, error FROM leveret_outbox WHERE id = %s", (row,)
        ).fetchone()


def test_a_committed_job_is_published_as_the_publisher_would(relay, databases, channel):
    """With all its options, and the row is gone."""
    shop, _ = databases
    expires = datetime(2099, 1, 31, tzinfo=UTC)
    with psycopg.connect(shop) as connection:
        job_id = outbox.enqueue(
            connection,
            "email.send",
            {"to": "ada@example.com", "text": "naïve 🐇"},
            queue="bulk",
            priority=5,
            correlation_id="order-1",
            expires=expires,
            max_retries=2,
            idempotency_key="key",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            app_id="shop",
        )
    (letter,) = take(channel)
    assert decode(letter.properties, letter.routing_key, letter.body) == Job(
        actor="email.send",
        arguments={"to": "ada@example.com", "text": "naïve 🐇"},
        id=job_id,
        queue="bulk",
        priority=5,
        correlation_id="order-1",
        expires_at=expires,
        max_retries=2,
        idempotency_key="key",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        app_id="shop",
    )
    assert letter.properties.delivery_mode == 2
    wait_until(lambda: waiting(shop) == 0, timeout=20)


def test_every_database_is_served(relay, databases, channel):
    """Each by a thread of its own, counted by its name."""
    for url in databases:
        with psycopg.connect(url) as connection:
            outbox.enqueue(connection, "email.send", {"from": url}, queue="bulk")
    found = {json.loads(letter.body)["from"] for letter in take(channel, 2)}
    assert found == set(databases)
    for url in databases:
        label = url.rpartition("/")[2]
        wait_until(
            lambda label=label: relay.metric("leveret_relay_published_total", database=label)
        )
        assert relay.metric("leveret_relay_batch_seconds_count", database=label) >= 1


def test_an_actor_and_a_body_are_enough_for_anybody(relay, databases, channel):
    """A foreign INSERT gets an id, and its body is passed on byte by byte."""
    body = b'{ "to" : "ada@example.com" }'
    insert(databases[0], actor="email.send", body=body)
    (letter,) = take(channel, queue=names.UNROUTABLE)  # no actor is bound in this virtual host
    assert (letter.body, letter.routing_key) == (body, "any.email.send")
    assert UUID(letter.properties.message_id)
    assert letter.properties.type == "email.send"


def test_the_order_of_a_transaction_is_kept(relay, databases, channel):
    """Over several batches."""
    with psycopg.connect(databases[0]) as connection:
        outbox.enqueue_many(
            connection, (("order.pack", {"n": n}) for n in range(1200)), queue="bulk"
        )
    found = take(channel, 1200)
    assert [json.loads(letter.body)["n"] for letter in found] == list(range(1200))


def test_a_transaction_that_commits_late_is_not_left_behind(relay, databases, channel):
    """Its row has an id that the relay has passed by."""
    shop, _ = databases
    with psycopg.connect(shop) as late:
        outbox.enqueue(late, "email.send", {"n": "late"}, queue="bulk")
        with psycopg.connect(shop) as early:
            outbox.enqueue_many(early, [("email.send", {"n": "early"})] * 3, queue="bulk")
        assert {json.loads(letter.body)["n"] for letter in take(channel, 3)} == {"early"}
        late.commit()
        (letter,) = take(channel)
    assert json.loads(letter.body)["n"] == "late"


def test_a_delayed_job_goes_into_the_wheel_and_is_never_early(relay, databases, channel):
    """Its delay is measured when it leaves."""
    due = datetime.now(UTC) + timedelta(seconds=1)
    with psycopg.connect(databases[0]) as connection:
        outbox.enqueue(connection, "email.send", {"n": 1}, at=due, queue="bulk")
    (letter,) = take(channel)
    assert datetime.now(UTC) >= due
    job = decode(letter.properties, letter.routing_key, letter.body)
    assert abs(job.due_at - due) < timedelta(milliseconds=1)


def test_a_job_beyond_the_horizon_waits_in_the_table_until_the_wheel_can_take_it(
    relay, databases, channel, vhost
):
    """Whether its writer knew of the horizon or not."""
    shop, _ = databases
    far = datetime.now(UTC) + wheel.HORIZON + timedelta(days=30)
    with psycopg.connect(shop) as connection:
        outbox.enqueue(connection, "email.send", {"n": 1}, at=far, queue="bulk", job_id="knew")
    insert(shop, job_id="did-not", actor="email.send", body=b"{}", queue="bulk", due_at=far)
    expected = far - wheel.HORIZON + timedelta(days=1)

    def held():
        with psycopg.connect(shop) as connection:
            found = connection.execute(
                "SELECT job_id FROM leveret_outbox WHERE hold_until = %s AND error IS NULL"
                " ORDER BY job_id",
                (expected,),
            ).fetchall()
        return [job_id for (job_id,) in found] == ["did-not", "knew"]

    wait_until(held, timeout=20, what="both are held")
    last_wheel = names.wheel_queue(wheel.DIGITS - 1, 15)
    channel.queue_purge(last_wheel)
    with psycopg.connect(shop) as connection:  # as if a month had passed
        connection.execute(
            "UPDATE leveret_outbox SET hold_until = now(), due_at = due_at - interval '32 days'"
        )
    wait_until(lambda: waiting(shop) == 0, timeout=20, what="they have left")
    assert {letter.properties.message_id for letter in take(channel, 2, queue=last_wheel)} == {
        "knew",
        "did-not",
    }


BAD = {
    "actor": ({"actor": "no actor"}, "dotted words"),
    "queue": ({"queue": "Not A Queue"}, "lower-case word"),
    "unknown queue": ({"queue": "nowhere"}, "nowhere.email.send"),
    "unknown option": ({"options": '{"retries": 3}'}, "no option 'retries'"),
    "wrong option": ({"options": '{"max_retries": "three"}'}, "max_retries is 'three'"),
    "wrong expiry": ({"options": '{"expires_at": "soon"}'}, "expires_at is 'soon'"),
    "wrong text": ({"options": '{"app_id": 5}'}, "app_id is a string"),
    "list of options": ({"options": "[1]"}, "JSON object"),
    "deep options": (
        {"options": "[" * 3000 + "]" * 3000},
        "options ",
    ),  # too deep to be read, or read
    "end of time": ({"due_at": "infinity"}, "no date in the calendar"),
    "year 200000": ({"due_at": "200000-01-01"}, "no date in the calendar"),
    "long id": ({"job_id": "x" * 256}, "1 to 255 bytes"),
    "large body": ({"body": b'{"x":"' + b"x" * 1024**2 + b'"}'}, "are the limit"),
    "properties without a key": ({"properties": b"\0\0"}, "needs a routing_key"),
    "unreadable properties": (
        {"properties": b"\xff\xff\xff", "routing_key": "bulk.email.send"},
        "cannot be read",
    ),
}


def test_bad_rows_are_set_aside_and_block_no_other(relay, databases, channel):
    """Each keeps its reason; what stands before and behind them leaves, in order."""
    shop, _ = databases
    good = {"actor": "email.send", "queue": "bulk"}
    bad = {}
    with psycopg.connect(shop) as connection:
        for n, (name, (columns, _)) in enumerate(BAD.items()):
            outbox.enqueue(connection, "email.send", {"n": n}, queue="bulk")
            row = {**good, "body": b"{}", **columns}
            bad[name] = connection.execute(
                f"INSERT INTO leveret_outbox ({', '.join(row)})"
                f" VALUES ({', '.join(f'%({key})s' for key in row)}) RETURNING id",
                row,
            ).fetchone()[0]
    found = take(channel, len(BAD), again=True)
    assert [json.loads(letter.body)["n"] for letter in found] == list(range(len(BAD)))
    wait_until(lambda: waiting(shop) == len(BAD), timeout=20)
    for name, row in bad.items():
        hold, error = state_of(shop, row)
        assert hold == "infinity", name
        assert BAD[name][1] in error, name
    label = shop.rpartition("/")[2]
    wait_until(
        lambda: relay.metric("leveret_outbox_failed", database=label) == len(BAD),
        timeout=30,
        what="the metric tells",
    )
    assert relay.events("relay.set_aside") >= len(BAD)


def test_a_mended_row_leaves(relay, databases, channel):
    """Whoever mends it lets it go again."""
    shop, _ = databases
    row = insert(shop, actor="email.send", queue="nowhere", body=b"{}")
    wait_until(lambda: state_of(shop, row)[0] == "infinity", timeout=20)
    with psycopg.connect(shop) as connection:
        connection.execute(
            "UPDATE leveret_outbox SET queue = 'bulk', hold_until = '-infinity', error = NULL"
        )
    assert len(take(channel)) == 1


def test_a_message_is_passed_on_as_it_was(relay, databases, channel):
    """Headers that are not ours survive; what the broker wrote does not, nor does the delay."""
    was = pika.BasicProperties(
        message_id="replayed",
        type="email.send",
        content_type="application/json",
        content_encoding="utf-8",
        app_id="shop",
        correlation_id="order-1",
        priority=4,
        timestamp=1_700_000_000,
        user_id="somebody",
        expiration="1",
        headers={
            "x-leveret-run": 1,
            "theirs": {"deep": [1, "two", None]},
            "x-death": [{"count": 1, "queue": "leveret.bulk"}],
            "x-first-death-queue": "leveret.bulk",
            "CC": ["elsewhere"],
        },
    )
    insert(
        databases[0],
        job_id="replayed",
        actor="email.send",
        body=b"not even JSON",
        properties=b"".join(was.encode()),
        routing_key="0.0.0.0.0.1.0.bulk.email.send",
    )
    (letter,) = take(channel)
    assert (letter.body, letter.routing_key) == (b"not even JSON", "bulk.email.send")
    assert letter.headers == {"x-leveret-run": 1, "theirs": {"deep": [1, "two", None]}}
    seen = letter.properties
    assert (seen.message_id, seen.app_id, seen.priority) == ("replayed", "shop", 4)
    assert (seen.content_encoding, seen.timestamp) == ("utf-8", 1_700_000_000)
    assert (seen.user_id, seen.expiration) == (None, None)


def test_a_message_that_is_passed_on_may_be_due_later(relay, databases, channel):
    """Then it takes the way through the wheel."""
    due = datetime.now(UTC) + timedelta(seconds=0.5)
    insert(
        databases[0],
        actor="email.send",
        body=b"{}",
        properties=b"".join(pika.BasicProperties(message_id="later").encode()),
        routing_key="bulk.email.send",
        due_at=due,
    )
    (letter,) = take(channel)
    assert datetime.now(UTC) >= due
    assert letter.routing_key.endswith(".bulk.email.send")
    assert letter.properties.message_id == "later"


def test_large_bodies_are_relayed_a_few_at_a_time(relay, databases, channel):
    """40 MB in one transaction, in order."""
    text = "x" * (1024 * 1024 - 100)
    with psycopg.connect(databases[0]) as connection:
        outbox.enqueue_many(
            connection,
            (("order.pack", {"n": n, "text": text}) for n in range(40)),
            queue="bulk",
        )
    found = take(channel, 40)
    assert [json.loads(letter.body)["n"] for letter in found] == list(range(40))


def test_a_write_that_nobody_is_notified_of_is_found(relay, databases, channel):
    """A copy of a table, or a trigger that was dropped: the poll is the safety net."""
    shop, _ = databases
    with psycopg.connect(shop) as connection:
        connection.execute("ALTER TABLE leveret_outbox DISABLE TRIGGER USER")
        outbox.enqueue(connection, "email.send", queue="bulk")
        connection.execute("ALTER TABLE leveret_outbox ENABLE TRIGGER USER")
    assert len(take(channel)) == 1


@pytest.mark.parametrize(
    ("query", "values", "index"),
    [(READY, (0, 500), "leveret_outbox_ready_idx"), (RELEASED, (500,), "leveret_outbox_held_idx")],
)
def test_a_scan_follows_its_index_whatever_the_statistics_say(fresh_database, query, values, index):
    """They are of the time when the table was empty, as it mostly is."""
    lay_out(fresh_database)
    fill = (
        "INSERT INTO leveret_outbox (actor, body, hold_until)"
        " SELECT 'a.b', repeat('x', 200)::bytea, '-infinity' FROM generate_series(1, 20000)"
    )
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        for statement in (fill, "DELETE FROM leveret_outbox", "ANALYZE leveret_outbox", fill):
            connection.execute(statement)
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(query.replace("SELECT id", "EXPLAIN SELECT id"), values)
        while cursor.nextset():
            pass
        plan = "\n".join(line for (line,) in cursor.fetchall())
        connection.rollback()
    assert f"Index Scan using {index}" in plan
    assert "Sort" not in plan


def test_several_relays_share_the_work(vhost, databases, channel, relay, tmp_path):
    """Each row leaves once, whoever has it."""
    shop, _ = databases
    other = RelayProcess(vhost, shop, folder=tmp_path).wait_ready()
    try:
        ids = []
        for _ in range(10):
            with psycopg.connect(shop) as connection:
                ids += outbox.enqueue_many(
                    connection, (("order.pack", {"n": n}) for n in range(200)), queue="bulk"
                )
        found = take(channel, 2000)
        assert {letter.properties.message_id for letter in found} == set(ids)
    finally:
        assert other.terminate() == 0


def test_a_service_and_its_relay_need_few_privileges(private_postgres, vhost, tmp_path, channel):
    """The service may only insert; the relay's role cannot insert."""
    server = private_postgres()
    lay_out(server.url())
    with psycopg.connect(server.url()) as connection:
        for role, privileges in (("service", "INSERT"), ("relay", "SELECT, UPDATE, DELETE")):
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
            connection.execute(f"GRANT {privileges} ON leveret_outbox TO {role}")
    url = server.url(user="relay", password="secret")
    process = RelayProcess(vhost, url, folder=tmp_path)
    try:
        with psycopg.connect(server.url(user="service", password="secret")) as connection:
            outbox.enqueue(connection, "email.send", queue="bulk")
            outbox.enqueue(connection, "email.send", queue="nowhere")
        assert len(take(channel, again=True)) == 1
        wait_until(lambda: process.events("relay.set_aside") == 1, timeout=20)
        assert process.terminate() == 0
    finally:
        process.kill()


# ------------------------------------------------------------------------------------- the process


def test_a_relay_ends_in_good_order(vhost, databases, tmp_path):
    """SIGTERM or SIGINT: status 0, and it says so."""
    process = RelayProcess(vhost, databases[0], folder=tmp_path).wait_ready()
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(30) == 0
    assert process.events("relay.stopped") == 1


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LEVERET_AMQP_URL": ""}, "LEVERET_AMQP_URL is not set"),
        ({"LEVERET_OUTBOX_URLS": ""}, "LEVERET_DATABASE_URL is not set"),
        ({"LEVERET_OUTBOX_URLS": "mysql://h/d"}, "scheme is 'mysql'"),
        ({"LEVERET_OUTBOX_LISTEN_URLS": "postgresql://h/a,postgresql://h/b"}, "one for each"),
    ],
)
def test_a_misconfigured_relay_says_so_in_one_line(vhost, tmp_path, variables, said):
    """Exit status 2."""
    process = RelayProcess(vhost, "postgresql://h/d", folder=tmp_path, **variables)
    assert process.process.wait(30) == 2
    (line,) = process.log.splitlines()
    assert said in line
    assert line.startswith("leveret relay: ")
