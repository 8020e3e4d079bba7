"""The images: small, hardened, complete, and known down to each package. `make image-test`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pip._internal.models.index import PyPI

from compose.engine import Engine, bases
from compose.native.paths import Checkout
from compose.native.processes import wait_until
from tests.containers.deployment import PROCESSES, Deployment
from tests.containers.image import ROOT, VERSION, Image

pytestmark = pytest.mark.timeout(1200)

BOTH = ("leveret", "leveret-actors")
MEGABYTE = 1_000_000
#: Of the issue that asked for the image; the other one adds what queries and pictures need.
LIMITS = {"leveret": 250, "leveret-actors": 450}
READY_SECONDS = 3.0
AMQP = "amqp://nobody:nothing@127.0.0.1:1/none"
DATABASE = "postgresql://nobody:nothing@127.0.0.1:1/none"


@pytest.fixture(params=BOTH)
def image(request: pytest.FixtureRequest, images: dict[str, Image]) -> Image:
    """Return each of the two images."""
    return images[request.param]


def test_the_dockerfiles_are_free_of_complaints():
    """By hadolint, and without one rule switched off but where the file says why."""
    files = [ROOT / "Dockerfile", *ROOT.glob("docs/**/Dockerfile")]
    assert len(files) > 1
    hadolint = Path(sys.executable).with_name("hadolint")
    answer = subprocess.run(
        [hadolint, "--no-color", *files], capture_output=True, text=True, check=False
    )
    assert answer.stdout == ""
    assert answer.returncode == 0


def test_the_image_is_small(images):
    """And what is added to the base is told."""
    base = images["leveret"].engine.inspect("python:3.11-slim")["Size"]
    sizes = {name: images[name].inspect()["Size"] for name in BOTH}
    print(f"\nbase {base / MEGABYTE:.0f} MB", end="")
    for name, size in sizes.items():
        print(f"; {name} {size / MEGABYTE:.0f} MB (+{(size - base) / MEGABYTE:.0f})", end="")
        assert size <= LIMITS[name] * MEGABYTE
    # The official base has up to 131 MB, where ours may have less.
    assert sizes["leveret"] - base <= (LIMITS["leveret"] - 135) * MEGABYTE


def test_the_image_says_what_it_is_and_probes_nothing(image):
    """Labels of the OCI, a user that is not root, and no health check: orchestrators have one."""
    found = image.inspect()["Config"]
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in found["Labels"].items()
    }
    assert labels["title"] == image.tag.partition(":")[0]
    assert labels["version"] == VERSION
    assert labels["licenses"] == "MIT"
    assert labels["base.name"] == "python:3.11-slim"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
    assert found["User"] == "10001:10001"
    assert found.get("Healthcheck") is None
    assert found["Entrypoint"] == ["python", "-m"]


def index_hosts() -> set[str]:
    """Return the hosts that this machine installs Python packages from."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    given = [asked.stdout, *(value for name, value in os.environ.items() if "INDEX" in name)]
    named = {
        urlsplit(url).hostname for text in given for url in re.findall(r"https?://[^\s']+", text)
    }
    return {PyPI.netloc, *filter(None, named)}


def test_the_image_holds_no_secret_and_names_no_index(image):
    """Neither in its settings and history, nor in a file that says where packages came from."""
    history = image.engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.tag)
    told = json.dumps(image.inspect()["Config"]) + history.stdout
    assert not re.search(r"index-url|find-links|trusted-host|://[^\s/]*@", told)
    assert not re.search(r"(?i)(password|token|secret)\w*=", told)
    hosts = index_hosts()
    assert hosts
    assert not [host for host in hosts if host in told]
    searching = (
        "grep -rlF {} /srv/leveret /etc /root /home /opt/leveret --include='*' --exclude=METADATA "
        "--exclude='*.py' --exclude='*.pyc' --exclude='*.so*' 2>/dev/null; true"
    )
    for host in hosts:
        assert image.run("sh", "-c", searching.format(host)).split() == [], host
    script = (
        "find / -xdev \\( -name pip.conf -o -name uv.toml -o -name .netrc -o -name .pypirc "
        "-o -name '*.key' -o -name id_rsa -o -name direct_url.json -o -name .git "
        "-o -name '*.env' -o -name '*.password' \\) -print 2>/dev/null; true"
    )
    found = image.run("sh", "-c", script).split()
    assert found == []
    assert image.run("sh", "-c", "ls -A /srv/leveret").split() == [
        "actors",
        "scheduler",
        "services",
    ]


def test_nothing_in_the_image_can_be_written_by_its_user(image):
    """But for the folder in which a volume is mounted, and those of every system."""
    script = "find / -xdev -writable -not -type l -print 2>/dev/null; true"
    allowed = ("/proc", "/dev", "/sys", "/tmp", "/var/tmp", "/run/lock", "/var/lib/leveret")
    found = [path for path in image.run("sh", "-c", script).split() if not path.startswith(allowed)]
    assert found == []
    with pytest.raises(Exception, match="Read-only file system"):
        image.run("sh", "-c", "touch /var/lib/leveret/x")


def test_the_bill_of_materials_is_valid_and_complete(image):
    """It follows CycloneDX's schema, and has exactly what is installed."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - of this target's environment
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    text = image.run("cat", "/opt/leveret/sbom.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    listed = {one["purl"] for one in document["components"]}
    installed = image.python(
        "import json, re\nfrom importlib.metadata import distributions\n"
        "print(json.dumps([[re.sub('[-_.]+', '-', d.name).lower(), d.version] "
        "for d in distributions()]))"
    )
    wanted = {f"pkg:pypi/{name}@{version}" for name, version in installed if name != "leveret"}
    assert {purl for purl in listed if purl.startswith("pkg:pypi/")} == wanted
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)
    assert any(purl.startswith("pkg:generic/python@3.11") for purl in listed)
    assert document["metadata"]["component"]["purl"] == f"pkg:pypi/leveret@{VERSION}"
    assert ("pkg:pypi/pyarrow" in text) == (image.tag.startswith("leveret-actors"))


def test_every_module_that_was_stripped_still_loads(image):
    """Extension modules without their symbols, and Arrow without its servers."""
    failed = image.python(
        "import importlib, importlib.machinery, json, pathlib, psycopg, sysconfig\n"
        "root = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "end = importlib.machinery.EXTENSION_SUFFIXES[0]\n"
        "failed = {}\n"
        "for file in sorted(root.rglob('*' + end)):\n"
        "    name = '.'.join(file.relative_to(root).parts)[: -len(end)]\n"
        "    if 'mypyc' in name: continue\n"
        "    try: importlib.import_module(name)\n"
        "    except Exception as error: failed[name] = repr(error)\n"
        "print(json.dumps(failed))",
        options=("--tmpfs", "/tmp"),
    )
    assert failed == {}


def test_nothing_is_compiled_at_run_time(image):
    """Every module of ours has its compiled form beside it, which nobody compares again."""
    missing = image.python(
        "import importlib.util, json, pathlib, leveret, actors, services\n"
        "roots = [pathlib.Path(m.__file__).parent for m in (leveret, actors, services)]\n"
        "print(json.dumps([str(f) for root in roots for f in root.rglob('*.py')\n"
        "  if not pathlib.Path(importlib.util.cache_from_source(f)).exists()]))"
    )
    assert missing == []


#: What each process needs to start; its peers are not there, and it says so and waits.
LONELY: dict[str, tuple[list[str], dict[str, str]]] = {
    "api": (["services.api"], {"LEVERET_DATABASE_URL": DATABASE, "LEVERET_AMQP_URL": AMQP}),
    "relay": (["services.relay"], {"LEVERET_DATABASE_URL": DATABASE, "LEVERET_AMQP_URL": AMQP}),
    "worker": (
        ["services.worker", "--queues", "default", "--processes", "1"],
        {"LEVERET_AMQP_URL": AMQP},
    ),
    "scheduler": (["scheduler"], {"LEVERET_DATABASE_URL": DATABASE}),
}


@pytest.fixture
def started(images: dict[str, Image]) -> Iterator[Any]:
    """Return a function that starts a process in the image; all of them end with the test."""
    engine: Engine = images["leveret"].engine
    containers: list[str] = []

    def start(tag: str, module: list[str], environment: dict[str, str]) -> str:
        given = [part for item in environment.items() for part in ("--env", "=".join(item))]
        answer = engine.docker(
            *("run", "--detach", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp"),
            *("--security-opt", "no-new-privileges", "--network", "none", *given, tag, *module),
        )
        containers.append(answer.stdout.strip())
        return containers[-1]

    yield start
    if containers:
        engine.docker("rm", "--force", "--volumes", *containers)


@pytest.mark.parametrize("process", LONELY)
def test_a_process_without_its_peers_waits_alive_and_ends_in_good_order(process, images, started):
    """As root of nothing, on a file system that is read-only; SIGTERM ends it with status 0."""
    engine = images["leveret"].engine
    module, environment = LONELY[process]
    container = started("leveret:" + VERSION, module, environment)
    probe = (
        "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=1); "
        "c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"
    )

    def lives() -> bool:
        answer = engine.docker("exec", container, "python", "-ISc", probe, check=False)
        return answer.returncode == 0

    def said() -> str:
        answer = engine.docker("logs", container)
        return answer.stdout + answer.stderr

    assert wait_until(lives, timeout_seconds=20), said()
    if process == "worker":  # whose children begin after it
        assert wait_until(lambda: "no connection to the broker" in said(), timeout_seconds=20)
    begin = time.monotonic()
    engine.docker("stop", "--time", "20", container)
    assert engine.inspect(container)["State"]["ExitCode"] == 0  # type: ignore[index]
    assert time.monotonic() - begin < 15


def test_an_actor_whose_library_is_in_the_other_image_says_so(images):
    """The smaller one can declare every actor, and run those that need no more than it has."""
    program = (
        "import json, sys, actors\nfrom actors.picture import decode\n"
        "loaded = [n for n in ('duckdb', 'pyarrow', 'PIL', 'openpyxl') if n in sys.modules]\n"
        "try: decode(b'x', max_pixels=1)\n"
        "except Exception as error: print(json.dumps([loaded, type(error).__name__, str(error)]))"
    )
    loaded, kind, said = images["leveret"].python(program)
    assert (loaded, kind) == ([], "ActorSettingsError")
    assert "leveret-actors" in said
    assert images["leveret-actors"].python(program)[1] == "ActorArgumentError"


def test_the_larger_image_queries_files_and_writes_each_format(images):
    """DuckDB, Arrow and openpyxl work after what they do not need was taken from them."""
    program = (
        "import json, pathlib\n"
        "from actors.data import aggregate\n"
        "pathlib.Path('/tmp/s').mkdir()\n"
        "pathlib.Path('/tmp/in.csv').write_text('a,b\\n1,2\\n1,3\\n2,5\\n')\n"
        "print(json.dumps([aggregate.fn(source='rows', group_by=['a'], measures=['sum:b'], "
        "format=form) for form in ('csv', 'parquet')]))"
    )
    environment = {
        "LEVERET_SOURCE_ROWS_URL": "/tmp/in.csv",
        "LEVERET_STORAGE_URL": "/tmp/s",
    }
    given = tuple(part for item in environment.items() for part in ("--env", "=".join(item)))
    found = images["leveret-actors"].python(program, options=(*given, "--tmpfs", "/tmp"))
    assert [(one["rows"], one["groups"]) for one in found] == [(3, 2), (3, 2)]


def test_another_team_adds_its_actors_with_a_dockerfile_of_its_own(images):
    """The example of the docs is built, and its actor is the one that is declared."""
    engine = images["leveret"].engine
    folder = ROOT / "docs" / "how-to" / "image-example"
    engine.docker(
        *("build", "--quiet", "--network", "host", "--build-arg", f"LEVERET=leveret:{VERSION}"),
        *("--tag", "acme-jobs:1", str(folder)),
    )
    acme = Image(engine, "acme-jobs:1")
    assert acme.inspect()["Config"]["User"] == "10001:10001"
    listed = acme.run("python", "-m", "leveret", "actors", "--json")
    assert [
        one["actor"] for one in json.loads(listed) if not one["actor"].startswith("leveret.")
    ] == ["invoice.file"]
    named = acme.python(
        "import json\nfrom acme.jobs import file_name\n"
        "print(json.dumps(file_name.fn(customer='Müller & Söhne', number=7)))"
    )
    assert named == {"file": "muller-sohne-000007.pdf"}


@pytest.fixture(scope="module")
def deployment(images, tmp_path_factory) -> Iterator[Deployment]:
    """Return the whole stack, ready."""
    engine = images["leveret"].engine
    bases.ensure(engine, Checkout.here(), bases.RABBITMQ, bases.POSTGRES)
    folder = tmp_path_factory.mktemp("image")
    found = Deployment(engine, "leveret-image", folder)
    yield found.up()
    found.down()


@pytest.mark.parametrize("service", PROCESSES)
def test_a_container_is_ready_soon_after_its_start(service, deployment):
    """The best of some tries, since others may use this machine too."""
    best = deployment.seconds_to_ready(service)
    for _ in range(5):
        if best <= READY_SECONDS:
            break
        wait_until(lambda: os.getloadavg()[0] < (os.cpu_count() or 1), timeout_seconds=20)
        best = min(best, deployment.seconds_to_ready(service))
    print(f" {best:.2f} s", end="")
    assert best <= READY_SECONDS
