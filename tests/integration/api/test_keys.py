"""Who may do what over HTTP: every endpoint, with every kind of key that is not right."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from leveret.settings import Settings
from leveret.store import api_keys
from leveret.store.api_keys import Scope
from leveret.store.schema import ApiKey, AuditEntry
from services.api import create_app
from services.api.authentication import TRUST_SECONDS
from tests.support.apis import ACTORS, Api
from tests.support.waiting import wait_until

#: What needs no key.
OPEN = {"/livez", "/readyz", "/metrics", "/asyncapi.json"}
#: The scopes with which one may do what needs a scope.
ENOUGH = {
    "publish": {"publish"},
    "read": {"read", "operate", "admin"},
    "operate": {"operate", "admin"},
    "admin": {"admin"},
}


def endpoints():
    """Return every endpoint of the application: method, path, and the scope that it says."""
    nowhere = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", actors=(ACTORS,))
    for path, methods in create_app(nowhere).openapi()["paths"].items():
        for method, operation in methods.items():
            scope = operation.get("security", [{"key": [None]}])[0]["key"][0]
            yield method.upper(), path, scope


ENDPOINTS = list(endpoints())
GUARDED = [(m, p, s) for m, p, s in ENDPOINTS if p not in OPEN]


@pytest.fixture(scope="module")
def tokens(api: Api) -> dict[str, str]:
    """Return keys that are not valid, by what is wrong with them."""
    good = api.key("publish", "admin")
    revoked, expired = api.key("publish", "admin"), api.key("publish", "admin")
    now = datetime.now(UTC)
    with api.engine.begin() as connection:
        api_keys.revoke(connection, revoked.split("_")[1])
        connection.execute(
            update(ApiKey).where(ApiKey.id == expired.split("_")[1]).values(expires_at=now)
        )
    return {
        "malformed": "lv_x_y",
        "another secret": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "unknown": f"lv_{'0' * 12}_{'0' * 64}",
        "revoked": revoked,
        "expired": expired,
    }


@pytest.fixture(autouse=True)
def _quiet(api: Api):
    """Forget failures: the tests of one process share an address."""
    forget(api)
    yield
    forget(api)


def forget(api: Api) -> None:
    """Let whoever has failed try again."""
    api.app.state.context.authenticator._limit._failures.clear()


def test_every_endpoint_but_the_open_ones_says_its_scope():
    """Below /v1 there is none without."""
    assert {p for _, p, s in ENDPOINTS if s is None} == OPEN
    assert all(p.startswith("/v1/") for _, p, _ in GUARDED)
    assert {s for _, _, s in GUARDED} == set(Scope)
    assert len(GUARDED) >= 20


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED)
def test_no_endpoint_answers_without_a_good_key(api, tokens, method, path, scope):
    """Without one, with one that is wrong in any way, and with one of all the other scopes."""
    headers = [None, "Basic bGV2ZXJldDp4", "Bearer", *(f"Bearer {t}" for t in tokens.values())]
    with api.client() as nobody:
        for header in headers:
            answer = nobody.request(
                method, path, headers={} if header is None else {"Authorization": header}
            )
            assert answer.status_code == 401, (header, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith('Bearer realm="leveret"')
    others = [word for word in Scope if word not in ENOUGH[scope]]
    with api.client(*others) as wrong:
        answer = wrong.request(method, path)
    assert answer.status_code == 403, answer.text
    assert answer.json()["type"] == "urn:leveret:problem:missing-scope"
    assert f'scope="{scope}"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED)
def test_every_scope_that_includes_it_opens_an_endpoint(api, method, path, scope):
    """Whatever else is wrong with the request then, it is not the key."""
    for word in sorted(ENOUGH[scope]):
        with api.client(word) as client:
            assert client.request(method, path).status_code not in (401, 403, 429)


def test_what_is_open_is_open(api):
    """Probes, metrics, and the two contracts."""
    with api.client() as nobody:
        for path in sorted(OPEN | {"/openapi.json"}):
            answer = nobody.get(path)
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert "leveret_http_requests_total{" in nobody.get("/metrics").text
        assert nobody.get("/asyncapi.json").json()["asyncapi"] == "3.0.0"
        answer = nobody.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/", "/v1", "/v1/", "/v1/nosuch"])
def test_what_is_not_there_is_a_problem_document(client, path):
    """No page of anybody else's is served."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_method_that_is_not_there_is_named(client):
    """With those that are."""
    answer = client.delete("/v1/queues")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == "GET"


def test_other_origins_are_not_let_in(client):
    """A browser on another site gets no permission."""
    answer = client.options(
        "/v1/jobs",
        headers={"Origin": "https://example.org", "Access-Control-Request-Method": "POST"},
    )
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_revoked_key_is_refused_within_seconds(api, client):
    """It had just been used; the other keys go on."""
    made = client.post("/v1/keys", json={"name": "short", "scopes": ["read"]}).json()
    with api.client(token=made["token"]) as short:
        assert short.get("/v1/actors").status_code == 200
        assert client.delete(f"/v1/keys/{made['key']['id']}").json()["state"] == "revoked"
        wait_until(
            lambda: short.get("/v1/actors").status_code == 401,
            timeout=TRUST_SECONDS + 20,
            every=0.2,
            what="the revoked key is refused",
        )
        assert "revoked" in short.get("/v1/actors").json()["detail"]
    assert client.get("/v1/actors").status_code == 200


def test_keys_are_listed_without_their_secrets(api, client):
    """With who made them, and when they were last used."""
    made = client.post(
        "/v1/keys",
        json={
            "name": "listed",
            "scopes": ["read", "publish"],
            "expires_at": "2100-01-01T00:00:00Z",
        },
    )
    assert made.status_code == 201
    token, key_id = made.json()["token"], made.json()["key"]["id"]
    with api.client(token=token) as used:
        used.get("/v1/actors")
    answer = client.get("/v1/keys")
    assert token.split("_")[2] not in answer.text
    (found,) = [key for key in answer.json()["keys"] if key["id"] == key_id]
    assert found["scopes"] == ["publish", "read"]
    assert found["created_by"].startswith("key:")
    assert found["last_used_at"] is not None
    with api.engine.begin() as connection:
        stored = connection.execute(select(ApiKey.hash).where(ApiKey.id == key_id)).scalar_one()
    assert len(stored) == 32


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "a\nb", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(client, wanted):
    """As a problem of the request."""
    assert client.post("/v1/keys", json=wanted).status_code == 422


def test_who_fails_too_often_has_to_wait(api):
    """But a key that was right before is let through, from the same address, too."""
    with api.client("read") as good, api.client() as nobody:
        assert good.get("/v1/actors").status_code == 200
        token = f"lv_{'0' * 12}_{'0' * 64}"
        headers = {"Authorization": f"Bearer {token}"}
        statuses = [nobody.get("/v1/actors", headers=headers).status_code for _ in range(25)]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        refused = nobody.get("/v1/actors", headers=headers)
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.headers["content-type"] == "application/problem+json"
        assert good.get("/v1/actors").status_code == 200


def test_refusals_are_written_down_but_not_a_thousand_times(api):
    """The first of a kind within a minute, whoever knocks."""
    token = api.key("read")
    key_id = token.split("_")[1]
    with api.client(token=token) as reader:
        for _ in range(30):
            assert reader.post("/v1/jobs", json={}).status_code == 403
    with api.engine.begin() as connection:
        (entry,) = connection.execute(
            select(AuditEntry.__table__).where(AuditEntry.who == f"key:{key_id}")
        ).all()
    assert (entry.action, entry.outcome) == ("job.publish", "refused")
    assert entry.detail == {"needs": "publish", "times": 1}


def test_the_audit_log_is_paged(client):
    """The newest first, with what to ask for next."""
    for number in range(3):
        client.post("/v1/keys", json={"name": f"page {number}", "scopes": ["read"]})
    first = client.get("/v1/audit-log", params={"limit": 2}).json()
    second = client.get("/v1/audit-log", params={"limit": 2, "before": first["next"]}).json()
    ids = [entry["id"] for entry in first["entries"] + second["entries"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 4
    assert first["entries"][0]["action"] == "key.create"


def test_a_forwarded_address_is_not_believed(client):
    """Whoever says to be somebody else is written down as what they are."""
    made = client.post(
        "/v1/keys",
        json={"name": "forwarded", "scopes": ["read"]},
        headers={"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.7"},
    ).json()["key"]["id"]
    entries = client.get("/v1/audit-log", params={"limit": 50}).json()["entries"]
    (entry,) = [entry for entry in entries if entry["target"] == made]
    assert entry["address"] == "127.0.0.1"


def test_too_many_headers_are_refused(client):
    """By their number, or by their size."""
    many = client.get("/v1/actors", headers={f"x-{n}": "1" for n in range(70)})
    large = client.get("/v1/actors", headers={"x-large": "1" * 17_000})
    assert (many.status_code, large.status_code) == (431, 431)
    assert many.headers["content-type"] == "application/problem+json"


def test_a_request_id_is_taken_up_or_made(client):
    """In the answer, and in a problem document."""
    answer = client.get("/v1/nosuch", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc-1"
    made = client.get("/v1/nosuch", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert len(made) == 16
