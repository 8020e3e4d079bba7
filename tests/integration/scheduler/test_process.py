"""``python -m scheduler``: taking over, hearing of changes, health."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from leveret.schedules import store
from leveret.schedules.policy import Missed, Overlap
from leveret.store import engine
from tests.support.pgbouncers import pgbouncer
from tests.support.proxies import TcpProxy
from tests.support.schedulers import create, every, query
from tests.support.waiting import wait_until

HOURLY = 3600


def fired(url, name) -> int:
    """Count the slots of a schedule that were fired."""
    return query(
        url,
        "SELECT count(*) FROM schedule_slots WHERE schedule = %s AND outcome = 'fired'",
        name,
    )[0][0]


def change(url, act):
    """Do something to the store, in a transaction."""
    owner = engine(url, pool_size=1)
    try:
        with owner.begin() as connection:
            act(connection)
    finally:
        owner.dispose()


def test_one_leads_and_resigns_to_another_within_a_second(timetable, schedulers):
    """Both are ready and live; who ends gives the lease back, and the other need not wait."""
    create(timetable, [every("s", 1, missed=Missed.ALL)])
    first = schedulers(timetable, term=30).wait_ready()
    wait_until(lambda: fired(timetable, "s") >= 1, timeout=60, what="it fires")
    second = schedulers(timetable, term=30).wait_ready()
    assert first.leads
    assert not second.leads
    assert second.get("/livez")[0] == 200
    assert first.metric("leveret_scheduler_lease_seconds") == 30
    assert 15 < first.metric("leveret_scheduler_lease_remaining_seconds") <= 30
    assert first.metric("leveret_schedule_slots_total", schedule="s", outcome="fired") >= 1
    assert first.metric("leveret_schedule_lateness_seconds_count") >= 1
    assert first.metric("leveret_schedules", origin="api", state="active") == 1
    assert query(
        timetable,
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"
        " AND datname = current_database()",
    ) == [(2,)]
    assert first.terminate() == 0
    wait_until(lambda: second.leads, timeout=60, what="the other leads")
    assert first.events("scheduler.resigned") == 1
    before = fired(timetable, "s")
    wait_until(lambda: fired(timetable, "s") > before, timeout=60, what="the other fires")
    ((gap,),) = query(
        timetable,
        "SELECT max(fired_at - due_at) FROM schedule_slots",
    )
    # Far from the term, which a dead one's place would have been empty for.
    assert gap < timedelta(seconds=10)


def test_a_change_is_live_at_once(timetable, schedulers):
    """Made, changed, paused, resumed, removed: the leader hears of it."""
    leader = schedulers(timetable, term=5).wait_ready()
    create(timetable, [every("s", HOURLY)])
    wait_until(lambda: leader.metric("leveret_schedules") >= 0, timeout=60)
    change(timetable, lambda c: store.change(c, "s", every("s", 1), by="test"))
    wait_until(lambda: fired(timetable, "s") >= 1, timeout=60, what="it fires each second")
    change(timetable, lambda c: store.pause(c, "s", by="test"))
    paused_at = query(timetable, "SELECT paused_at FROM schedules")[0][0]
    change(timetable, lambda c: store.resume(c, "s", by="test"))
    before = fired(timetable, "s")
    wait_until(lambda: fired(timetable, "s") > before, timeout=60, what="it fires again")
    assert paused_at is not None
    change(timetable, lambda c: store.remove(c, "s", by="test"))
    before = fired(timetable, "s")
    create(timetable, [every("other", 1)])
    wait_until(lambda: fired(timetable, "other") >= 2, timeout=60)
    assert fired(timetable, "s") == before
    ((worst,),) = query(timetable, "SELECT max(fired_at - due_at) FROM schedule_slots")
    assert worst < timedelta(seconds=10)


def test_a_change_is_found_where_nothing_can_be_heard(timetable, schedulers):
    """LISTEN is refused: the sweep finds what is due soon, and a standby sees the resigned."""
    with TcpProxy.before(timetable) as deaf:
        deaf.refuse()
        variables = {"LEVERET_DATABASE_LISTEN_URL": deaf.through(timetable)}
        leader = schedulers(timetable, term=30, **variables).wait_ready()
        wait_until(lambda: leader.events("scheduler.cannot_listen") == 1, timeout=60)
        create(timetable, [every("s", 1)])
        wait_until(lambda: fired(timetable, "s") >= 2, timeout=60, what="it is found")
        other = schedulers(timetable, term=30, **variables).wait_ready()
        leader.terminate()
        wait_until(lambda: other.leads, timeout=60, what="the other leads, before the term ends")


def test_a_leader_that_is_cut_off_is_not_live_and_comes_back(timetable, schedulers):
    """Its fires stop, another takes over; when it can speak again, it stands by."""
    create(timetable, [every("s", 1, missed=Missed.ALL)])
    with TcpProxy.before(timetable) as proxy:
        first = schedulers(proxy.through(timetable), term=1).wait_ready()
        wait_until(lambda: fired(timetable, "s") >= 1, timeout=60)
        second = schedulers(timetable, term=1).wait_ready()
        proxy.stall()
        wait_until(lambda: first.get("/livez")[0] == 503, timeout=60, what="it is not live")
        wait_until(lambda: second.leads, timeout=60, what="the other leads")
        assert second.get("/livez")[0] == 200
        wait_until(lambda: first.get("/readyz")[0] == 503, timeout=60)
        proxy.resume()
        proxy.cut()
        wait_until(lambda: first.get("/livez")[0] == 200, timeout=60, what="it is live again")
        wait_until(lambda: first.get("/readyz")[0] == 200, timeout=60)
        assert not first.leads
    assert first.events("scheduler.database_lost") == 1


def test_a_scheduler_waits_for_its_database_and_its_tables(fresh_database, schedulers):
    """One line says what is missing, one that it is there."""
    with TcpProxy.before(fresh_database) as proxy:
        proxy.refuse()
        waiting = schedulers(proxy.through(fresh_database), term=1)
        wait_until(lambda: waiting.events("scheduler.database_lost") == 1, timeout=60)
        assert waiting.get("/readyz")[0] == 503
        assert waiting.get("/livez")[0] == 200
        proxy.resume()
        wait_until(lambda: proxy.connections >= 1, timeout=60)
        from leveret.store.migrate import upgrade  # noqa: PLC0415

        owner = engine(fresh_database, pool_size=1)
        upgrade(owner)
        owner.dispose()
        waiting.wait_ready()
        wait_until(lambda: waiting.leads, timeout=60)
    assert waiting.events("scheduler.database_lost") == 1
    assert waiting.events("scheduler.database_found") == 1


def test_what_is_misconfigured_is_said_in_one_line(schedulers, timetable):
    """The exit status is 2."""
    for variables, word in (
        ({"LEVERET_SCHEDULER_LEASE": "0.5"}, "LEVERET_SCHEDULER_LEASE is '0.5'"),
        ({"LEVERET_DATABASE_URL": "mysql://x"}, "LEVERET_DATABASE_URL must look like"),
        ({"LEVERET_DATABASE_LISTEN_URL": "x://y"}, "LEVERET_DATABASE_LISTEN_URL must look like"),
        ({"LEVERET_DATABASE_URL": ""}, "LEVERET_DATABASE_URL is not set"),
    ):
        process = schedulers(timetable, **variables)
        assert process.process.wait(60) == 2
        assert process.log.startswith("leveret scheduler: ")
        assert word in process.log
        assert process.log.count("\n") == 1


def renewals(scheduler):
    """Tell how often a scheduler has renewed its lease."""
    return scheduler.metric("leveret_scheduler_lease_renewals_total", outcome="renewed")


def test_it_works_through_pgbouncer(timetable, schedulers, checkout):
    """In transaction mode; only LISTEN has PostgreSQL itself."""
    with pgbouncer(checkout, timetable) as bounced:
        create(timetable, [every("s", 1), every("q", 1, overlap=Overlap.QUEUE)])
        leader = schedulers(bounced, LEVERET_DATABASE_LISTEN_URL=timetable).wait_ready()
        wait_until(lambda: fired(timetable, "s") >= 3, timeout=60, what="it fires")
        create(timetable, [every("new", 1)])
        wait_until(lambda: fired(timetable, "new") >= 1, timeout=60)
        assert leader.leads
        wait_until(lambda: renewals(leader) >= 1, what="it renews")
        assert leader.terminate() == 0
    assert leader.events("scheduler.resigned") == 1


def test_slots_that_passed_without_a_leader_are_missed(timetable, schedulers):
    """What each policy says becomes of six hours of them."""
    create(
        timetable,
        [
            every("skip", HOURLY, missed=Missed.SKIP),
            every("once", HOURLY, missed=Missed.ONCE),
            every("all", HOURLY, missed=Missed.ALL),
            every("window", HOURLY, missed=Missed.ALL, window=timedelta(hours=2.5)),
        ],
    )
    query(
        timetable,
        "UPDATE schedules SET since = since - interval '6 h',"
        " next_due_at = next_due_at - interval '6 h'",
    )
    leader = schedulers(timetable, term=1)
    wait_until(
        lambda: query(timetable, "SELECT bool_and(last_slot IS NOT NULL) FROM schedules")[0][0],
        timeout=60,
        what="all are decided on",
    )
    found = {
        (name, outcome): (rows, slots)
        for name, outcome, rows, slots in query(
            timetable,
            "SELECT schedule, outcome, count(*)::int, sum(count)::int FROM schedule_slots"
            " GROUP BY 1, 2",
        )
    }
    rows, every_slot = found["skip", "skipped"]
    assert rows == 1
    assert every_slot in {6, 7}
    assert found["once", "skipped"] == (1, every_slot - 1)
    assert found["once", "fired"] == (1, 1)
    assert found["all", "fired"] == (every_slot, every_slot)
    rows, fresh = found["window", "fired"]
    assert rows == fresh
    assert fresh in {2, 3}
    assert found["window", "skipped"] == (1, every_slot - fresh)
    missed = leader.metric("leveret_schedule_missed_total", schedule="skip")
    assert missed == every_slot


def test_overlap_waits_for_the_job_before(timetable, schedulers):
    """Slots queue while it lives, as the ledger says, and are fired one after another."""
    create(timetable, [every("q", 1, overlap=Overlap.QUEUE), every("s", 1, overlap=Overlap.SKIP)])
    schedulers(timetable, term=1)

    def count(name, outcome):
        return query(
            timetable,
            "SELECT count(*) FROM schedule_slots WHERE schedule = %s AND outcome = %s",
            name,
            outcome,
        )[0][0]

    wait_until(lambda: count("q", "queued") >= 2, timeout=60, what="two wait")
    wait_until(lambda: count("s", "skipped") >= 2, timeout=60, what="two are skipped")
    assert count("q", "fired") == count("s", "fired") == 1

    def end_all():
        query(
            timetable,
            "INSERT INTO jobs (id, created_at, state)"
            " SELECT job_id, slot, 'succeeded' FROM schedule_slots WHERE outcome = 'fired'"
            " ON CONFLICT DO NOTHING",
        )

    end_all()
    wait_until(lambda: count("q", "fired") == 2, timeout=60, what="the oldest is fired")
    wait_until(lambda: count("s", "fired") == 2, timeout=60, what="a later one is fired")
    slots = query(
        timetable,
        "SELECT slot FROM schedule_slots WHERE schedule = 'q' AND outcome <> 'skipped'"
        " ORDER BY outcome = 'queued', slot",
    )
    assert slots == sorted(slots)


def test_a_schedule_that_cannot_be_read_is_said_once_and_harms_no_other(timetable, schedulers):
    """Somebody wrote into the table by hand."""
    create(timetable, [every("bad", 1), every("good", 1)])
    query(timetable, "UPDATE schedules SET expression = 'soon' WHERE name = 'bad'")
    leader = schedulers(timetable, term=1)
    wait_until(lambda: fired(timetable, "good") >= 3, timeout=60)
    assert leader.events("scheduler.schedule_unusable") == 1
    assert fired(timetable, "bad") == 0


def test_who_locks_a_schedule_keeps_only_that_from_firing(timetable, schedulers):
    """And it fires when they are done."""
    create(timetable, [every("locked", 1, missed=Missed.ALL), every("free", 1)])
    with psycopg.connect(timetable) as connection:
        connection.execute("SELECT FROM schedules WHERE name = 'locked' FOR UPDATE")
        schedulers(timetable, term=1)
        wait_until(lambda: fired(timetable, "free") >= 2, timeout=60)
        assert fired(timetable, "locked") == 0
    wait_until(lambda: fired(timetable, "locked") >= 2, timeout=60)


def test_declared_schedules_are_made_when_it_starts(timetable, schedulers, tmp_path):
    """And removed by the one that starts when they are gone; a name that is taken is an error."""
    declared = tmp_path / "schedules.toml"
    declared.write_text('[schedules.tick]\nactor = "tick.tock"\nevery = "1s"\n')
    variables = {"LEVERET_SCHEDULES": str(declared)}
    first = schedulers(timetable, **variables).wait_ready()
    wait_until(lambda: fired(timetable, "tick") >= 1, timeout=60, what="it is made, and fires")
    assert first.terminate() == 0
    who = query(timetable, "SELECT who, action FROM audit_log WHERE target = 'tick'")
    assert [action for _, action in who] == ["schedule.create"]
    assert who[0][0].startswith("scheduler:")
    schedulers(timetable).wait_ready().terminate()
    assert query(timetable, "SELECT count(*) FROM schedules") == [(0,)]
    create(timetable, [every("tick", 1)])
    clashing = schedulers(timetable, **variables)
    assert clashing.process.wait(60) == 2
    assert "leveret scheduler: the schedule 'tick' is declared" in clashing.log
