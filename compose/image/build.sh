#!/bin/sh
# Build both images with the labels of this checkout. More arguments go to `docker build`.
set -eu
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
for name in leveret leveret-actors; do
    docker build --target "$name" --tag "$name:$version" \
        --build-arg VERSION="$version" --build-arg REVISION="$revision" \
        --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$@" .
done
docker image ls --filter reference="leveret*:$version"
