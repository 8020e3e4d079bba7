"""Write what is installed as a CycloneDX 1.6 bill of materials: `python sbom.py FILE`.

It lists the interpreter that runs it, its distributions and, where there is a dpkg, Debian's
packages. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import uuid
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

_DPKG = Path("/var/lib/dpkg/status")
_OS = Path("/etc/os-release")


def main() -> None:
    """Write the file that the command line names."""
    document = bill(list(distributions()), _DPKG)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    Path(sys.argv[1]).write_text(text, encoding="utf-8")
    print(f"{len(document['components'])} components in {sys.argv[1]}")


def bill(installed: list[Distribution], dpkg: Path) -> dict[str, Any]:
    """Return the document for these distributions, and for what dpkg's status file lists."""
    python = sorted((_of_python(one) for one in installed), key=_name)
    (product,) = [one for one in python if one["name"] == "leveret"]
    python.remove(product)
    debian = sorted(_of_debian(dpkg), key=_name) if dpkg.exists() else []
    cpython = platform.python_version()
    interpreter = _component(f"pkg:generic/python@{cpython}", "python", cpython)
    components = [*python, interpreter, *debian]
    listed = "\n".join(one["purl"] for one in [product, *components])
    serial = uuid.UUID(bytes=hashlib.sha256(listed.encode()).digest()[:16], version=4)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {**product, "type": "application"}},
        "components": components,
    }


def _name(component: dict[str, Any]) -> str:
    return str(component["bom-ref"])


def _component(purl: str, name: str, version: str, **more: object) -> dict[str, Any]:
    found = {"type": "library", "bom-ref": purl, "purl": purl, "name": name, "version": version}
    return {**found, **more}


def _of_python(one: Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", one.name).lower()
    more: dict[str, object] = {}
    expression, named = (
        next(iter(one.metadata.get_all(word) or ()), None)
        for word in ("License-Expression", "License")
    )
    if expression:
        more["licenses"] = [{"expression": expression}]
    elif named and "\n" not in named and len(named) < 100:
        more["licenses"] = [{"license": {"name": named}}]
    return _component(f"pkg:pypi/{name}@{one.version}", name, one.version, **more)


def _of_debian(status: Path) -> list[dict[str, Any]]:
    release = re.search(r"^VERSION_ID=\"?(\d+)", _OS.read_text(), re.MULTILINE)
    distro = f"debian-{release[1]}" if release else "debian"
    found = []
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[\w-]+: ", line)
        )
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            query = f"arch={fields['Architecture']}&distro={distro}"
            purl = f"pkg:deb/debian/{name}@{quote(version, safe='')}?{query}"
            found.append(_component(purl, name, version))
    return found


if __name__ == "__main__":
    main()
