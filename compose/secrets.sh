#!/bin/sh
# secrets.sh [FOLDER]: generate what compose.yaml hands to its services as secrets, each to those
# alone that need it. Existing passwords stay, so it may be run again after an update; remove the
# folder (and the volumes) to begin anew. Needs a shell, od and /dev/urandom.
set -eu
folder=${1:-${LEVERET_SECRETS:-$(dirname "$0")/secrets}}
roles="admin publisher relay worker recorder api monitor"
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

# Files are open to every account, because those of the containers are others than yours; the
# folder keeps everybody else on this machine out.
keep() {
    cat >"$1.new"
    chmod 444 "$1.new"
    mv -f "$1.new" "$1"
}
password() {
    [ -s "$1.password" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | keep "$1.password"
    cat "$1.password"
}

owner=$(password owner)
printf 'default_user = leveret-owner\ndefault_pass = %s\ndefault_vhost = leveret\n' "$owner" |
    keep owner.conf
echo "http://leveret-owner:$owner@rabbitmq:15672" | keep owner.management-url
for role in $roles; do
    secret=$(password "$role")
    echo "amqp://leveret-$role:$secret@rabbitmq:5672/leveret" | keep "$role.amqp-url"
    case $role in admin | api | monitor)
        echo "http://leveret-$role:$secret@rabbitmq:15672" | keep "$role.management-url" ;;
    esac
done
password grafana >/dev/null
password postgres >/dev/null
database=$(password database)
printf "CREATE ROLE leveret LOGIN PASSWORD '%s';\nCREATE DATABASE leveret OWNER leveret;\n" \
    "$database" | keep database.sql
echo "postgresql://leveret:$database@postgres:5432/leveret" | keep database.url
# For publishers on this machine: `set -a; . compose/secrets/client.env`.
port=${LEVERET_AMQP_PORT:-5672}
echo "LEVERET_AMQP_URL=amqp://leveret-publisher:$(password publisher)@127.0.0.1:$port/leveret" |
    keep client.env
echo "secrets are in $folder"
