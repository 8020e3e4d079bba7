"""What schedules fire, over HTTP: slots, previews, runs, backfills and gaps."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from leveret.ledger import State
from leveret.schedules.definition import job_id

if TYPE_CHECKING:
    from collections.abc import Callable

_numbers = itertools.count()
HOUR = timedelta(hours=1)

_SLOT = text(
    "INSERT INTO schedule_slots (schedule, slot, until, count, outcome, reason, job_id, due_at,"
    " fired_at) VALUES (:schedule, :slot, :until, :count, :outcome, :reason, :job_id, :slot,"
    " CAST(:slot AS timestamptz) + interval '250 ms')"
)


def written(moment: datetime) -> str:
    """Return a time as the API writes it."""
    return moment.isoformat().replace("+00:00", "Z")


@pytest.fixture
def made(client, request) -> Callable[..., str]:
    """Return a function that makes a schedule, and returns where it is."""

    def make(**fields: Any) -> str:
        name = f"{request.node.originalname[:60]}.{next(_numbers)}"
        given = {"name": name, "actor": "order.note", "arguments": {"text": "hello"}}
        answer = client.post("/v1/schedules", json=given | {"every": 3600} | fields)
        assert answer.status_code == 201, answer.text
        return f"/v1/schedules/{name}"

    return make


@pytest.fixture
def hour() -> datetime:
    """Return the hour that it is."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def write(api, place: str, slot: datetime, **fields: Any) -> None:
    """Write the row of a slot."""
    given = {"until": None, "count": 1, "outcome": "fired", "reason": None, "job_id": None}
    values = {"schedule": place.rsplit("/", 1)[1], "slot": slot}
    with api.engine.begin() as connection:
        connection.execute(_SLOT, given | values | fields)


def age(api, place: str, since: datetime, last_slot: datetime) -> None:
    """Let a schedule be older than it is."""
    with api.engine.begin() as connection:
        connection.execute(
            text("UPDATE schedules SET since = :since, last_slot = :last WHERE name = :name"),
            {"since": since, "last": last_slot, "name": place.rsplit("/", 1)[1]},
        )


def test_the_slots_are_listed_with_their_jobs(api, client, made, hour):
    """Newest first, in pages, by outcome and period."""
    place = made()
    name = place.rsplit("/", 1)[1]
    job = job_id(name, hour)
    write(api, place, hour, job_id=job)
    write(api, place, hour - 9 * HOUR, until=hour - 5 * HOUR, count=5, outcome="skipped")
    for back in (1, 2, 3):
        write(api, place, hour - back * HOUR, job_id=job_id(name, hour - back * HOUR))
    with api.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, created_at, state, reason) VALUES"
                " (:id, :at, 'dead', 'exhausted')"
            ),
            {"id": job, "at": hour},
        )
    first = client.get(f"{place}/slots", params={"limit": 1}).json()
    (line,) = first["slots"]
    assert (line["slot"], line["job_id"], line["outcome"]) == (written(hour), job, "fired")
    assert (line["job_state"], line["job_reason"]) == (State.DEAD, "exhausted")
    assert (line["lateness"], line["cause"]) == (0.25, "schedule")

    def listed(**params: Any) -> list[str]:
        found = client.get(f"{place}/slots", params=params).json()["slots"]
        return [line["slot"] for line in found]

    fired = [written(hour - back * HOUR) for back in (0, 1, 2, 3)]
    assert listed(cursor=first["next"]) == [*fired[1:], written(hour - 9 * HOUR)]
    assert listed(outcome="skipped") == [written(hour - 9 * HOUR)]
    assert listed(outcome=["fired", "queued"]) == fired
    assert listed(since=written(hour - 6 * HOUR), until=fired[2]) == [
        fired[3],
        written(hour - 9 * HOUR),
    ]
    (run,) = client.get(f"{place}/slots", params={"outcome": "skipped"}).json()["slots"]
    assert (run["until"], run["count"]) == (written(hour - 5 * HOUR), 5)
    assert (run["lateness"], run["job_state"]) == (None, None)


def test_the_history_of_a_schedule_stays(api, client, made, hour):
    """When it is removed; one that never was has none."""
    place = made()
    assert client.get(f"{place}/slots").json() == {"slots": [], "next": None}
    write(api, place, hour)
    client.delete(place)
    assert len(client.get(f"{place}/slots").json()["slots"]) == 1
    assert client.get(f"{place}/slots", params={"outcome": "queued"}).json()["slots"] == []
    assert client.get("/v1/schedules/never.was/slots").status_code == 404


@pytest.mark.parametrize(
    "params", [{"cursor": "nonsense"}, {"outcome": "lost"}, {"limit": 201}, {"since": "soon"}]
)
def test_what_cannot_be_listed_is_refused(client, made, params):
    """By the parameter."""
    answer = client.get(f"{made()}/slots", params=params)
    assert answer.status_code == 422
    parameter = answer.json()["errors"][0]["parameter"]
    assert parameter.split(".")[0] == next(iter(params))


def test_a_preview_marks_daylight_saving(client, made):
    """The time that is left out in March is moved, that which there is twice in October is one."""
    place = made(every=None, cron="30 1 * * *", tz="Europe/Lisbon")
    params = {"from": "2027-03-27T00:00:00Z", "to": "2027-03-29T23:00:00Z"}
    march = client.get(f"{place}/preview", params=params).json()
    assert (march["zone"], march["truncated"]) == ("Europe/Lisbon", False)
    assert [(e["slot"], e["local"], e["mark"]) for e in march["entries"]] == [
        ("2027-03-27T01:30:00Z", "2027-03-27T01:30:00+00:00", None),
        ("2027-03-28T01:00:00Z", "2027-03-28T02:00:00+01:00", "moved"),
        ("2027-03-29T00:30:00Z", "2027-03-29T01:30:00+01:00", None),
    ]
    assert march["entries"][1]["wanted"] == "2027-03-28T01:30:00"
    asked = {"cron": "30 1 * * *", "tz": "Europe/Lisbon", "skipped": "skip", **params}
    skips = client.post("/v1/schedules/preview", json=asked).json()
    assert [(e["slot"], e["mark"]) for e in skips["entries"]][1] == (None, "skipped")
    october = {"from": "2027-10-31T00:00:00Z", "to": "2027-10-31T23:00:00Z", "doubled": "both"}
    both = client.post("/v1/schedules/preview", json=asked | october).json()
    assert [e["mark"] for e in both["entries"]] == ["first", "second"]


def test_a_preview_begins_now_and_has_a_limit(client, made):
    """It says whether there is more."""
    place = made(every=60)
    found = client.get(f"{place}/preview", params={"limit": 3}).json()
    assert (len(found["entries"]), found["truncated"]) == (3, True)
    asked = {"at": "2030-01-01T00:00", "tz": "Asia/Tokyo"}
    once = client.post("/v1/schedules/preview", json=asked).json()
    assert [e["slot"] for e in once["entries"]] == ["2029-12-31T15:00:00Z"]
    assert not once["truncated"]


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, "/cron"),
        ({"cron": "* * * *"}, "/cron"),
        ({"every": 60, "limit": 5000}, "/limit"),
        ({"every": 60, "colour": "red"}, "/colour"),
        ({"every": 60, "from": "2027-01-02T00:00:00Z", "to": "2027-01-01T00:00:00Z"}, "/to"),
        ({"every": 60, "from": "0001-01-01T00:00:00Z"}, "/from"),
        ({"every": 60, "to": "9999-12-31T23:59:59Z"}, "/to"),
    ],
)
def test_a_preview_of_nonsense_is_refused(client, asked, pointer):
    """By a pointer into the request."""
    answer = client.post("/v1/schedules/preview", json=asked)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_a_range_of_a_preview_that_ends_before_it_begins_is_refused(client, made):
    """By the parameter."""
    params = {"from": "2027-01-02T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
    answer = client.get(f"{made()}/preview", params=params)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "to"


def outbox(api, place: str) -> list[str]:
    """Return the ids of the jobs of a schedule that are to be published."""
    with api.engine.connect() as connection:
        return list(
            connection.execute(
                text(
                    "SELECT job_id FROM leveret_outbox WHERE options->>'schedule' = :name"
                    " ORDER BY id"
                ),
                {"name": place.rsplit("/", 1)[1]},
            ).scalars()
        )


def entries(api, place: str, action: str) -> list[dict[str, Any]]:
    """Return what the audit log says."""
    with api.engine.connect() as connection:
        found = connection.execute(
            text("SELECT * FROM audit_log WHERE action = :a AND target = :t ORDER BY id"),
            {"a": action, "t": place.rsplit("/", 1)[1]},
        )
        return [dict(row) for row in found.mappings()]


def test_a_schedule_is_run_now(api, client, made):
    """Also while it is paused; the same request again is the same job."""
    place = made()
    client.post(f"{place}/pause")
    key = {"Idempotency-Key": place}
    answer = client.post(f"{place}/run", headers=key)
    assert answer.status_code == 202, answer.text
    fired = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{fired['job_id']}"
    again = client.post(f"{place}/run", headers=key)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (fired, "true")
    other = client.post(f"{place}/run").json()
    assert other["job_id"] != fired["job_id"]
    assert outbox(api, place) == [fired["job_id"], other["job_id"]]
    slots = client.get(f"{place}/slots").json()["slots"]
    assert [slot["cause"] for slot in slots] == ["run", "run"]
    assert slots[0]["asked_by"].startswith("key:")
    first, _ = entries(api, place, "schedule.run")
    assert (first["address"], first["detail"]["job_id"]) == ("127.0.0.1", fired["job_id"])


def test_a_backfill_fires_what_was_left_out(api, client, made, hour):
    """First it is shown; then it is done, once, and never more than the limit."""
    place = made()
    write(api, place, hour - 5 * HOUR, until=hour - 3 * HOUR, count=3, outcome="skipped")
    write(api, place, hour - 2 * HOUR)
    wanted = {"from": written(hour - 5 * HOUR), "to": written(hour - 2 * HOUR)}
    shown = client.post(f"{place}/backfill", json=wanted | {"dry_run": True}).json()
    expected = [written(hour - back * HOUR) for back in (5, 4, 3)]
    assert [slot["slot"] for slot in shown["slots"]] == expected
    assert (shown["dry_run"], shown["fired_before"], shown["more"]) == (True, 1, False)
    part = client.post(f"{place}/backfill", json=wanted | {"dry_run": True, "limit": 2}).json()
    assert (len(part["slots"]), part["more"]) == (2, True)
    few = client.post(f"{place}/backfill", json=wanted | {"limit": 2})
    assert few.status_code == 409
    assert few.json()["errors"][0]["reason"] == "too-many"
    assert outbox(api, place) == []
    key = {"Idempotency-Key": place}
    done = client.post(f"{place}/backfill", json=wanted, headers=key)
    assert done.json()["slots"] == shown["slots"]
    again = client.post(f"{place}/backfill", json=wanted, headers=key)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (done.json(), "true")
    assert client.post(f"{place}/backfill", json=wanted).json()["slots"] == []
    assert outbox(api, place) == [slot["job_id"] for slot in shown["slots"]]
    refused, noted = entries(api, place, "schedule.backfill")
    assert (refused["outcome"], refused["detail"]["why"]) == ("refused", "too-many")
    assert (noted["outcome"], noted["detail"]["slots"]) == ("done", 3)
    assert noted["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("asked", "status", "where"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, 422, "/to"),
        ({"from": "2026-01-01T00:00:00Z"}, 422, "/to"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z"}, 409, None),
        ({"from": "2026-01-01T00:00Z", "to": "2026-01-01T01:00Z", "limit": 10**5}, 422, "/limit"),
        ({"from": "2026-01-01T00:00Z", "to": "2026-01-01T01:00Z", "sure": True}, 422, "/sure"),
    ],
)
def test_a_backfill_of_nonsense_is_refused(client, made, asked, status, where):
    """By a pointer into the request; what is to come is the scheduler's."""
    answer = client.post(f"{made()}/backfill", json=asked)
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"][0].get("pointer") == where


def test_gaps_are_found(api, client, made, hour):
    """And what is late, and what was fired and never seen again; of one schedule or of all."""
    gap, late = made(), made()
    name = gap.rsplit("/", 1)[1]
    age(api, gap, hour - 6 * HOUR, hour)
    age(api, late, hour - 3 * HOUR, hour - 2 * HOUR)
    lost = hour - 3 * HOUR
    for back in (1, 2, 4, 5):
        write(api, gap, hour - back * HOUR)
    write(api, gap, lost, job_id=job_id(name, lost))
    write(api, gap, hour)
    write(api, late, hour - 2 * HOUR)
    with api.engine.begin() as connection:
        connection.execute(
            text("DELETE FROM schedule_slots WHERE schedule = :name AND slot = :slot"),
            {"name": name, "slot": hour - 4 * HOUR},
        )
    found = client.get("/v1/schedules/gaps", params={"schedule": name}).json()
    assert found["gaps"] == [{"schedule": name, "slot": written(hour - 4 * HOUR)}]
    assert [orphan["job_id"] for orphan in found["without_job"]] == [job_id(name, lost)]
    assert (found["overdue"], found["schedules"], found["shortened"]) == ([], 1, {})
    everything = client.get("/v1/schedules/gaps").json()
    assert found["gaps"][0] in everything["gaps"]
    (overdue,) = (o for o in everything["overdue"] if o["schedule"] == late.rsplit("/", 1)[1])
    assert overdue["slot"] == written(hour - HOUR)
    since = {"schedule": name, "since": written(hour - 2 * HOUR)}
    assert client.get("/v1/schedules/gaps", params=since).json()["gaps"] == []
    assert client.get("/v1/schedules/gaps", params={"schedule": "never.was"}).status_code == 404
