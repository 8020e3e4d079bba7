#!/bin/sh
# Stands in for the entry point of the image `postgres`, as far as compose.yaml uses it: at the
# first start it makes the cluster, with the superuser's password from a file, and runs the SQL
# files of /docker-entrypoint-initdb.d.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 \
        --auth-local=trust --encoding=UTF8 --locale=C.UTF-8 --pgdata="$PGDATA" >/dev/null
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata="$PGDATA" --silent --wait --options="-c listen_addresses=''" start
    for file in /docker-entrypoint-initdb.d/*.sql; do
        [ -f "$file" ] && psql -v ON_ERROR_STOP=1 --quiet --no-psqlrc --username=postgres -f "$file"
    done
    pg_ctl --pgdata="$PGDATA" --silent --wait --mode=fast stop
fi
exec "$@"
