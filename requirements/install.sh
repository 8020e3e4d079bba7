#!/bin/sh
# install.sh ENVIRONMENT LOCK STAMP: install a lock and this project, then leave the stamp.
set -eu
environment=$1 lock=$2 stamp=$3
echo "installing requirements/$lock.lock into $environment"
pip() {
    "$environment/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}
pip install -qq --require-hashes --requirement "requirements/$lock.lock"
pip install -qq --no-deps --no-build-isolation --editable .
rm -f "$environment/.$lock-"*
touch "$stamp"
