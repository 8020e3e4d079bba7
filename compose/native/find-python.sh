#!/bin/sh
# Print a Python of at least 3.11 that can make virtual environments.
set -eu
usable() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    usable "$candidate" || continue
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        command -v "$candidate"
        exit 0
    fi
    lacking=$candidate
done
if [ -n "${lacking:-}" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing python3-venv with apt-get, for $lacking" >&2
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends python3-venv; } >/dev/null
        if "$lacking" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            command -v "$lacking"
            exit 0
        fi
    fi
    echo "$lacking cannot make virtual environments: install python3-venv" >&2
else
    echo "no Python of at least 3.11 on PATH: install one, or set PYTHON=/path/to/python3" >&2
fi
exit 1
