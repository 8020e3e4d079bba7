"""Schedules over HTTP: made, shown, changed, paused, removed; and what is refused, and where."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from leveret.schedules import store
from leveret.schedules.definition import Definition
from leveret.schedules.trigger import Cron

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

_numbers = itertools.count()
SHIP = {"order": 1, "to": "Lisbon"}


@pytest.fixture
def new(request) -> Callable[..., dict[str, Any]]:
    """Return a function that makes up a schedule, by a name that no other test has."""

    def make(**fields: Any) -> dict[str, Any]:
        name = f"{request.node.originalname[:60]}.{next(_numbers)}"
        given = {"name": name, "actor": "order.note", "arguments": {"text": "hello"}}
        return (
            given | ({"cron": "0 9 * * *"} if not {"every", "at"} & fields.keys() else {}) | fields
        )

    return make


def faults(answer: httpx.Response) -> dict[str, dict[str, Any]]:
    """Return what is wrong with a request, by where it is."""
    return {
        fault.get("pointer") or fault.get("parameter") or fault.get("header") or "": fault
        for fault in answer.json()["errors"]
    }


def entry(api, action: str, name: str) -> dict[str, Any]:
    """Return the latest entry of the audit log of an action."""
    with api.engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT who, outcome, detail, address FROM audit_log WHERE action = :action"
                " AND target = :name ORDER BY id DESC LIMIT 1"
            ),
            {"action": action, "name": name},
        )
        return dict(found.mappings().one())


def test_a_schedule_is_made_and_shown(api, client, new):
    """With its version as ETag, its place, and what it does next in its zone and in UTC."""
    wanted = new(
        tz="Europe/Lisbon",
        jitter="30s",
        missed="all",
        window="1h",
        overlap="skip",
        options={"priority": 3, "unique_for": 60},
        queue="bulk",
        start="2027-01-01T00:00",
        description="Every morning",
    )
    answer = client.post("/v1/schedules", json=wanted)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Location"] == f"/v1/schedules/{wanted['name']}"
    given = (
        "name",
        "actor",
        "arguments",
        "queue",
        "cron",
        "tz",
        "missed",
        "overlap",
        "description",
    )
    assert {name: made[name] for name in given} == {name: wanted[name] for name in given}
    assert (made["origin"], made["state"], made["version"]) == ("api", "active", 1)
    assert (made["jitter"], made["window"]) == (30, 3600)
    assert (made["skipped"], made["doubled"]) == ("next", "first")
    assert made["options"] == {"priority": 3, "unique_for": 60}
    assert [fire["at"] for fire in made["next"]] == [
        f"2027-01-0{day}T09:00:00Z" for day in range(1, 6)
    ]
    assert made["next"][0]["local"] == "2027-01-01T09:00:00+00:00"
    assert made["next_due_at"] < "2027-01-01T09:00:31"
    shown = client.get(answer.headers["Location"])
    assert shown.json() == made
    assert shown.headers["ETag"] == '"1"'
    noted = entry(api, "schedule.create", wanted["name"])
    assert noted["who"].startswith("key:")
    assert noted["address"] == "127.0.0.1"
    assert "hello" not in str(noted)


@pytest.mark.parametrize(
    ("fields", "pointer", "position"),
    [
        ({"cron": "0 25 * * *"}, "/cron", 3),
        ({"cron": "0 0 30 2 *"}, "/cron", 5),
        ({"cron": "0 9 * * MOO"}, "/cron", 9),
        ({"cron": "0 9 * * *", "tz": "Europe/Lissabon"}, "/tz", None),
        ({"every": 0.5}, "/every", None),
        ({"every": "soon"}, "/every", None),
        ({"every": 60, "anchor": "never"}, "/anchor", None),
        ({"every": 60, "skipped": "next"}, "/skipped", None),
        ({"at": "2027-13-01"}, "/at", None),
        ({"at": "2020-01-01T00:00:00Z"}, "/at", None),
        ({"every": 60, "jitter": "2d"}, "/jitter", None),
        ({"every": 60, "window": 0}, "/window", None),
        ({"every": 60, "start": "2027-02-01T00:00Z", "end": "2027-01-01T00:00Z"}, "/end", None),
        ({"every": 60, "name": "a name"}, "/name", 2),
        ({"every": 60, "actor": "no.such"}, "/actor", None),
        ({"every": 60, "queue": "nowhere"}, "/queue", None),
        ({"every": 60, "arguments": {"txet": "x"}}, "/arguments/txet", None),
        ({"every": 60, "options": {"idempotency_key": "k"}}, "/options", None),
        ({"every": 60, "options": {"colour": "red"}}, "/options/colour", None),
        ({"every": 60, "missed": "some"}, "/missed", None),
        ({"every": 60, "colour": "red"}, "/colour", None),
    ],
)
def test_what_cannot_be_is_refused_where_it_is(client, new, fields, pointer, position):
    """By a pointer into the request, and the column of an expression; nothing is made."""
    wanted = new(**fields)
    answer = client.post("/v1/schedules", json=wanted)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    found = faults(answer)
    assert pointer in found, answer.text
    assert found[pointer].get("position") == position
    assert client.get(f"/v1/schedules/{wanted['name']}").status_code == 404


def test_everything_that_is_wrong_is_said_at_once(client, new):
    """The time table, the queue and each argument."""
    wrong = new(cron="0 9 * *", queue="nowhere", arguments={"text": 1, "more": 2})
    found = faults(client.post("/v1/schedules", json=wrong))
    assert set(found) == {"/cron", "/queue", "/arguments/text", "/arguments/more"}


@pytest.mark.parametrize("fields", [{}, {"cron": "* * * * *", "every": 60}])
def test_a_schedule_has_one_time_table(client, new, fields):
    """Neither none nor two."""
    wanted = new() | {"cron": None} | fields
    answer = client.post("/v1/schedules", json=wanted)
    assert answer.status_code == 422
    assert "one of cron, every and at" in answer.json()["detail"]


def test_a_name_is_taken_once(client, new):
    """Unless it is the same request again, which is answered as the first was."""
    wanted = new()
    key = {"Idempotency-Key": wanted["name"]}
    first = client.post("/v1/schedules", json=wanted, headers=key)
    assert first.status_code == 201
    again = client.post("/v1/schedules", json=wanted, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["ETag"] == first.headers["ETag"]
    other = client.post("/v1/schedules", json=wanted | {"cron": "0 8 * * *"}, headers=key)
    assert (other.status_code, list(faults(other))) == (422, ["Idempotency-Key"])
    clash = client.post("/v1/schedules", json=wanted)
    assert clash.status_code == 409
    assert faults(clash)["/name"]["reason"] == "name-taken"


def test_a_change_says_only_what_is_another(api, client, new):
    """The rest stays; another kind of time table takes the place of the old one."""
    wanted = new(tz="Europe/Lisbon", queue="bulk", overlap="skip")
    place = f"/v1/schedules/{wanted['name']}"
    client.post("/v1/schedules", json=wanted)
    later = client.patch(place, json={"cron": "*/15 * * * *", "queue": None}).json()
    assert (later["cron"], later["tz"], later["queue"]) == ("*/15 * * * *", "Europe/Lisbon", None)
    assert (later["skipped"], later["doubled"]) == ("skip", "both")
    assert (later["overlap"], later["arguments"]) == ("skip", {"text": "hello"})
    assert later["version"] == 2
    steady = client.patch(place, json={"every": 90})
    assert (steady.json()["cron"], steady.json()["every"], steady.json()["tz"]) == (None, 90, "UTC")
    assert steady.headers["ETag"] == '"3"'
    same = client.patch(place, json={"every": "1m30s"})
    assert same.headers["ETag"] == '"3"'
    noted = entry(api, "schedule.change", wanted["name"])
    assert "trigger" in noted["detail"]["changed"]
    assert noted["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"cron": "61 * * * *"}, "/cron"),
        ({"tz": "Nowhere/Land"}, "/tz"),
        ({"arguments": {"no": 1}}, "/arguments/no"),
        ({"arguments": {"text": 1}, "queue": "none"}, "/queue"),
        ({"actor": None}, "/actor"),
        ({"actor": "no.such"}, "/actor"),
        ({"name": "other"}, "/name"),
        ({"paused": True}, "/paused"),
        ({"cron": None}, "/cron"),
    ],
)
def test_a_change_is_refused_where_it_is_wrong(client, new, change, pointer):
    """As a new schedule would be, and nothing is changed."""
    wanted = new()
    place = f"/v1/schedules/{wanted['name']}"
    made = client.post("/v1/schedules", json=wanted).json()
    answer = client.patch(place, json=change)
    assert answer.status_code == 422, answer.text
    assert pointer in faults(answer), answer.text
    assert client.get(place).json()["version"] == made["version"]


def test_who_has_seen_another_version_changes_nothing(client, new):
    """If-Match holds for changing and for removing."""
    wanted = new()
    place = f"/v1/schedules/{wanted['name']}"
    seen = client.post("/v1/schedules", json=wanted).headers["ETag"]
    mine = {"If-Match": seen}
    assert client.patch(place, json={"cron": "0 8 * * *"}, headers=mine).status_code == 200
    for stale in (seen, f"W/{seen}", "nonsense", '"7", "8"'):
        late = client.patch(place, json={"cron": "0 7 * * *"}, headers={"If-Match": stale})
        assert late.status_code == 412, stale
        assert late.headers["ETag"] == '"2"'
        assert late.json()["type"] == "urn:leveret:problem:changed"
        assert faults(late)["If-Match"]["reason"] == "another-version"
    assert client.delete(place, headers=mine).status_code == 412
    fits = {"If-Match": '"1", "2"'}
    assert client.patch(place, json={"cron": "0 6 * * *"}, headers=fits).status_code == 200
    assert client.delete(place, headers={"If-Match": "*"}).status_code == 200
    assert client.get(place).status_code == 404


def test_a_paused_schedule_fires_nothing_until_it_is_resumed(api, client, new):
    """Twice is harmless; who did it is written down."""
    wanted = new(every=60)
    place = f"/v1/schedules/{wanted['name']}"
    client.post("/v1/schedules", json=wanted)
    paused = client.post(f"{place}/pause").json()
    assert (paused["state"], paused["next"]) == ("paused", [])
    assert paused["paused_by"].startswith("key:")
    assert client.post(f"{place}/pause").json()["version"] == paused["version"]
    assert entry(api, "schedule.pause", wanted["name"])["address"] == "127.0.0.1"
    resumed = client.post(f"{place}/resume")
    assert (resumed.json()["state"], len(resumed.json()["next"])) == ("active", 5)
    assert resumed.headers["ETag"] == f'"{resumed.json()["version"]}"'
    assert entry(api, "schedule.resume", wanted["name"])["address"] == "127.0.0.1"


def test_a_removed_schedule_is_shown_a_last_time(api, client, new):
    """And then it is unknown, to everybody."""
    wanted = new()
    place = f"/v1/schedules/{wanted['name']}"
    made = client.post("/v1/schedules", json=wanted).json()
    assert client.delete(place).json() == made
    assert entry(api, "schedule.remove", wanted["name"])["address"] == "127.0.0.1"
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("PATCH", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/run"),
        ("POST", "/backfill"),
        ("GET", "/slots"),
        ("GET", "/preview"),
    ):
        body = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
        json = {"PATCH": {}, "POST": body if path == "/backfill" else None}.get(method)
        answer = client.request(method, place + path, json=json)
        assert answer.status_code == 404, (method, path, answer.text)
        assert "there is no schedule" in answer.json()["detail"]


def test_what_code_declares_is_changed_there(api, client, new):
    """It is refused with a reason, which is written down; pausing is allowed."""
    name = new()["name"]
    definition = Definition(name=name, actor="order.note", trigger=Cron("0 9 * * *"))
    with api.engine.begin() as connection:
        store.create(connection, definition, origin="code", by="test")
    place = f"/v1/schedules/{name}"
    for answer in (client.patch(place, json={"cron": "0 8 * * *"}), client.delete(place)):
        assert answer.status_code == 409
        assert answer.json()["errors"][0]["reason"] == "declared"
        assert "next to its actor" in answer.json()["detail"]
    assert entry(api, "schedule.change", name)["outcome"] == "refused"
    assert client.post(f"{place}/pause").status_code == 200
    assert client.get(place).json()["origin"] == "code"


def test_schedules_are_listed_by_name_in_pages(client, new):
    """By actor, origin and whether they are paused."""
    names = []
    for _ in range(5):
        wanted = new(actor="order.keep", arguments={}, every=60)
        names.append(client.post("/v1/schedules", json=wanted).json()["name"])
    names.sort()
    client.post(f"/v1/schedules/{names[2]}/pause")

    def listed(**which: Any) -> list[str]:
        found, after = [], {}
        while True:
            params = {"actor": "order.keep", "limit": 2, **which, **after}
            page = client.get("/v1/schedules", params=params).json()
            found += [schedule["name"] for schedule in page["schedules"]]
            if page["next"] is None:
                return found
            after = {"after": page["next"]}

    assert listed() == names
    assert listed(paused=True) == [names[2]]
    assert listed(paused=False, origin="api") == [*names[:2], *names[3:]]
    assert listed(origin="code") == []
    assert client.get("/v1/schedules", params={"limit": 0}).status_code == 422
    assert client.get("/v1/schedules", params={"colour": "red"}).status_code == 422


def test_reading_and_operating_are_two_things(api, new):
    """A key that may read sees, and changes nothing; one that publishes does neither."""
    wanted = new()
    place = f"/v1/schedules/{wanted['name']}"
    with api.client("operate") as operator, api.client("read") as reader:
        assert operator.post("/v1/schedules", json=wanted).status_code == 201
        assert reader.get(place).status_code == 200
        preview = reader.post("/v1/schedules/preview", json={"every": 60})
        assert preview.status_code == 200
        for method, path in (
            ("POST", "/v1/schedules"),
            ("PATCH", place),
            ("DELETE", place),
            *(("POST", f"{place}/{verb}") for verb in ("pause", "resume", "run", "backfill")),
        ):
            assert reader.request(method, path, json={}).status_code == 403, (method, path)
    with api.client("publish") as publisher:
        assert publisher.get("/v1/schedules").status_code == 403


def test_a_schedule_in_the_far_future_is_shown(client, new):
    """One moment, and then it has ended."""
    at = (datetime.now(UTC) + timedelta(days=400)).replace(microsecond=0)
    made = client.post("/v1/schedules", json=new(at=at.isoformat())).json()
    assert [fire["at"] for fire in made["next"]] == [made["at"]]
    assert datetime.fromisoformat(made["at"]) == at


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/v1/schedules"),
        ("patch", "/v1/schedules/{name}"),
        ("post", "/v1/schedules/preview"),
        ("post", "/v1/schedules/{name}/backfill"),
    ],
)
def test_the_document_has_examples_that_are_taken(api, client, new, method, path):
    """Whoever copies one gets an answer; only the actor is one that is here."""
    place = client.post("/v1/schedules", json=new()).headers["Location"]
    operation = api.app.openapi()["paths"][path][method]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    model = api.app.openapi()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for example in model["examples"]:
        ours = new() if "name" in example else {}
        here = {key: value for key, value in ours.items() if key in {"name", "actor", "arguments"}}
        url = path.replace("/v1/schedules/{name}", place)
        answer = client.request(method.upper(), url, json=example | here)
        # Of a backfill in a year to come: it is understood, and refused for that.
        assert answer.status_code in {200, 201, 409}, answer.text


def test_a_row_that_cannot_be_read_spoils_no_list(api, client, new):
    """It is named, with the reason, and the others are shown."""
    names = sorted(
        client.post("/v1/schedules", json=new(actor="order.ship", arguments=SHIP)).json()["name"]
        for _ in range(3)
    )
    with api.engine.begin() as connection:
        connection.execute(
            text("UPDATE schedules SET timezone = 'Mars/Base' WHERE name = :name"),
            {"name": names[1]},
        )
    page = client.get("/v1/schedules", params={"actor": "order.ship", "limit": 2}).json()
    assert [schedule["name"] for schedule in page["schedules"]] == [names[0]]
    (odd,) = page["unreadable"]
    assert odd["schedule"] == names[1]
    assert "Mars/Base" in odd["detail"]
    params = {"actor": "order.ship", "after": page["next"]}
    rest = client.get("/v1/schedules", params=params).json()
    assert [schedule["name"] for schedule in rest["schedules"]] == [names[2]]
    assert rest["next"] is None
    with api.engine.begin() as connection:
        connection.execute(text("DELETE FROM schedules WHERE name = ANY(:names)"), {"names": names})
