"""`webhook.deliver` against a real HTTP server."""

import json
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook
from werkzeug import Response

from actors.error import ActorArgumentError, ActorSettingsError, RefusedError, UnavailableError
from actors.webhook import deliver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(autouse=True)
def allowed(configure):
    """Let the actor reach the test's own machine, and give it a secret."""
    configure(WEBHOOK_ALLOW_PRIVATE=1, WEBHOOK_SECRET=SECRET, WEBHOOK_TIMEOUT_SECONDS=2)


def test_the_receiver_can_check_the_signature_and_tell_a_repeat(httpserver, current_job):
    """Body, signature, id and idempotency key are those of the job in both deliveries."""
    current_job.idempotency_key = "order-7"
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok", status=202)
    payload = {"event": "report.ready", "name": "Größe"}
    for _ in range(2):
        result = deliver.fn(url=httpserver.url_for("/hook"), payload=payload)
        assert result == {"status": 202}
    requests = [request for request, _ in httpserver.log]
    for request in requests:
        assert Webhook(SECRET).verify(request.data, dict(request.headers)) == payload
        assert request.headers["Webhook-Id"] == "job-1"
        assert request.headers["Idempotency-Key"] == "order-7"
        assert request.headers["Content-Type"] == "application/json"
        assert abs(int(request.headers["Webhook-Timestamp"]) - time.time()) < 60
    assert len(requests) == 2


def test_a_receiver_can_have_its_own_secret(httpserver, configure):
    """One receiver's secret cannot be used to fool another."""
    httpserver.expect_request("/hook").respond_with_data("ok")
    configure(WEBHOOK_SECRET_SHOP="whsec_" + "QUJD" * 8)
    deliver.fn(url=httpserver.url_for("/hook"), payload={}, secret="shop")
    request = httpserver.log[0][0]
    assert Webhook("whsec_" + "QUJD" * 8).verify(request.data, dict(request.headers)) == {}
    with pytest.raises(ActorSettingsError, match="LEVERET_WEBHOOK_SECRET_BANK"):
        deliver.fn(url=httpserver.url_for("/hook"), payload={}, secret="bank")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_retried(httpserver, status):
    """Overload and failures of the server are worth another attempt."""
    httpserver.expect_request("/hook").respond_with_data("later", status=status)
    with pytest.raises(UnavailableError, match=f"{status}: 'later'") as caught:
        deliver.fn(url=httpserver.url_for("/hook"), payload={})
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_what_the_receiver_refuses_is_final(httpserver, status):
    """A receiver that says no is not asked again."""
    httpserver.expect_request("/hook").respond_with_data("no", status=status)
    with pytest.raises(RefusedError, match=str(status)):
        deliver.fn(url=httpserver.url_for("/hook"), payload={})


def test_retry_after_is_honoured_in_both_forms_up_to_a_limit(httpserver):
    """Seconds and dates reach the retry; a wait of a year is cut."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for path, header in (("/s", "7"), ("/d", soon), ("/y", "31536000")):
        httpserver.expect_request(path).respond_with_data(
            "busy", status=429, headers={"Retry-After": header}
        )
    waits = {}
    for path in ("/s", "/d", "/y"):
        with pytest.raises(UnavailableError) as caught:
            deliver.fn(url=httpserver.url_for(path), payload={})
        waits[path] = caught.value.retry_after
    assert waits["/s"] == 7
    assert 60 < waits["/d"] <= 90
    assert waits["/y"] == 3600


def test_redirects_are_refused_unless_allowed(httpserver, configure):
    """Without the setting a redirect is final; with it the same body goes to the new place."""
    httpserver.expect_request("/old").respond_with_response(
        Response(status=307, headers={"Location": "/new"})
    )
    httpserver.expect_request("/new", method="POST").respond_with_data("ok")
    with pytest.raises(RefusedError, match="LEVERET_WEBHOOK_REDIRECTS"):
        deliver.fn(url=httpserver.url_for("/old"), payload={"a": 1})
    configure(WEBHOOK_REDIRECTS=1)
    deliver.fn(url=httpserver.url_for("/old"), payload={"a": 1})
    assert [request.path for request, _ in httpserver.log] == ["/old", "/old", "/new"]
    assert json.loads(httpserver.log[-1][0].data) == {"a": 1}


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_body_is_never_followed(httpserver, configure, status):
    """These turn a POST into a GET for most clients, which would deliver nothing."""
    configure(WEBHOOK_REDIRECTS=5)
    httpserver.expect_request("/old").respond_with_response(
        Response(status=status, headers={"Location": "/new"})
    )
    with pytest.raises(RefusedError, match=str(status)):
        deliver.fn(url=httpserver.url_for("/old"), payload={})
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "http://user:pw@localhost/", "gopher://x/", ""]
)
def test_a_redirect_to_no_good_place_is_final(httpserver, configure, location):
    """A redirect cannot change what kinds of URL are taken."""
    configure(WEBHOOK_REDIRECTS=2)
    httpserver.expect_request("/old").respond_with_response(
        Response(status=308, headers={"Location": location})
    )
    with pytest.raises(RefusedError):
        deliver.fn(url=httpserver.url_for("/old"), payload={})


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_the_own_machine_is_refused_in_every_spelling(httpserver, configure, host):
    """The resolved address decides, not how it is written."""
    configure(WEBHOOK_ALLOW_PRIVATE=0)
    with pytest.raises(RefusedError, match="no public address"):
        deliver.fn(url=f"http://{host}:{httpserver.port}/hook", payload={})
    assert httpserver.log == []


def test_a_redirect_to_a_private_address_is_refused(httpserver, configure, monkeypatch):
    """Every hop is judged, not only the first."""
    httpserver.expect_request("/old").respond_with_response(
        Response(status=307, headers={"Location": "http://169.254.169.254/latest"})
    )
    configure(WEBHOOK_ALLOW_PRIVATE=0, WEBHOOK_REDIRECTS=3)
    monkeypatch.setattr("actors.address.is_public", lambda address: address.is_loopback)
    with pytest.raises(RefusedError, match=r"169\.254\.169\.254"):
        deliver.fn(url=httpserver.url_for("/old"), payload={})


def test_a_name_that_changes_its_address_gains_nothing(httpserver, configure, monkeypatch):
    """The name is resolved once, and the connection goes to the address that was judged."""
    resolve = socket.getaddrinfo
    asked = []

    def rebinding(host, port, *args, **options):
        if host == "rebind.example.com":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return resolve(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr("actors.address.is_public", lambda address: str(address) == "127.0.0.1")
    configure(WEBHOOK_ALLOW_PRIVATE=0)
    httpserver.expect_request("/hook").respond_with_data("ok")
    deliver.fn(url=f"http://rebind.example.com:{httpserver.port}/hook", payload={})
    assert asked == ["rebind.example.com"]
    assert httpserver.log[0][0].headers["Host"] == f"rebind.example.com:{httpserver.port}"
    with pytest.raises(RefusedError, match=r"127\.0\.0\.2"):
        deliver.fn(url=f"http://rebind.example.com:{httpserver.port}/hook", payload={})


def test_tls_checks_the_name_though_the_connection_goes_to_an_address(
    authority, ca_file, configure, monkeypatch
):
    """Pinning the address keeps SNI and the check of the certificate's name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("good.example.com").configure_cert(context)
    names = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **options: resolve(
            "127.0.0.1" if str(host).endswith("example.com") else host, *args, **options
        ),
    )
    configure(WEBHOOK_CA_FILE=ca_file)
    with HTTPServer(host="127.0.0.1", ssl_context=context) as server:
        server.expect_request("/hook").respond_with_data("ok")
        assert deliver.fn(url=f"https://good.example.com:{server.port}/hook", payload={}) == {
            "status": 200
        }
        with pytest.raises(UnavailableError, match="certificate"):
            deliver.fn(url=f"https://evil.example.com:{server.port}/hook", payload={})
    assert names == ["good.example.com", "evil.example.com"]


def test_proxies_of_the_environment_are_not_used(httpserver, monkeypatch):
    """A proxy would connect to an address that nobody judged."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    httpserver.expect_request("/hook").respond_with_data("ok")
    assert deliver.fn(url=httpserver.url_for("/hook"), payload={}) == {"status": 200}


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/", "http://", "http://user:pw@example.com/", "http://exa mple.com/", "x"],
)
def test_a_url_that_cannot_be_used_is_dead_and_its_login_not_shown(url):
    """Only http and https without a login."""
    with pytest.raises(ActorArgumentError) as caught:
        deliver.fn(url=url, payload={})
    assert "pw" not in str(caught.value)


def test_a_name_without_an_address_and_a_closed_port_are_retried():
    """Names and servers come back."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "http://nothing.invalid/"):
        with pytest.raises(UnavailableError, match="cannot be reached"):
            deliver.fn(url=url, payload={})


class RawServer:
    """A server that sends what it is given to one connection."""

    def __init__(self, write):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sent = 0
        self._write = write
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            for piece in self._write(self._stop):
                try:
                    connection.sendall(piece)
                except OSError:
                    return
                self.sent += len(piece)

    def close(self):
        """Stop and wait."""
        self._stop.set()
        self._thread.join()
        self._listener.close()


def test_an_endless_answer_is_not_read_to_its_end(configure):
    """Only the first bytes are read, and the status decides."""
    configure(WEBHOOK_RESPONSE_BYTES=1000)

    def endless(stop):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
        while not stop.is_set():
            yield b"x" * 65536

    server = RawServer(endless)
    try:
        assert deliver.fn(url=f"http://127.0.0.1:{server.port}/", payload={}) == {"status": 200}
    finally:
        server.close()
    assert server.sent < 50_000_000


@pytest.mark.parametrize("pause", [0.1, 30])
def test_a_silent_or_dripping_server_is_left(configure, pause):
    """Both the pause between two pieces and the whole answer have a limit."""
    configure(WEBHOOK_TIMEOUT_SECONDS=0.5, WEBHOOK_TOTAL_SECONDS=1)

    def dripping(stop):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"
        while not stop.wait(pause):
            yield b"x"

    server = RawServer(dripping)
    started = time.monotonic()
    try:
        with pytest.raises(UnavailableError, match=r"too long|ReadTimeout"):
            deliver.fn(url=f"http://127.0.0.1:{server.port}/", payload={})
    finally:
        server.close()
    assert time.monotonic() - started < 5
