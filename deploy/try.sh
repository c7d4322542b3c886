#!/usr/bin/env bash
# Runs the servers of compose.yaml without Docker, on addresses of loopback (Linux), and kills the primary of Redis under
# requests: are the settings right? Needs redis-server, PostgreSQL, curl, and haproxy if it is there.
#   deploy/try.sh target/debug/bartizan
set -euo pipefail
bartizan=$(realpath "$1") here=$(dirname "$(realpath "$0")") net=127.0.77
home=$(mktemp -d) && chmod 711 "$home"
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$home"
}
trap end EXIT
run() { # NAME COMMAND...: its process becomes the last of `pids`
    "${@:2}" >"$home/$1.log" 2>&1 &
    pids+=($!)
}
until_ok() { # WHAT COMMAND...
    for _ in $(seq 150); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.2; done
    tail -n 5 "$home"/*.log >&2
    echo "failed: $1" >&2
    exit 1
}
says() { curl --silent --max-time 5 "$1" | grep --quiet "$2"; }

mkdir -p "$home"/secrets/{bartizan,postgres,redis,sentinel}
secrets() {
    BARTIZAN=$bartizan KEEP_OWNER=1 REDIS_1=$net.31 REDIS_2=$net.32 "$here/secrets.sh" "$home"/secrets/{bartizan,postgres,redis,sentinel} 2>&1
}
secrets | grep --quiet 'made the secrets'
secrets | grep --quiet 'the secrets are there'

for n in 1 2; do
    mkdir "$home/redis-$n"
    sed "s#/data#$home/redis-$n#; s#/secrets#$home/secrets/redis#" "$home/secrets/redis/redis-$n.conf" >"$home/redis-$n/redis.conf"
    printf 'bind %s\nbind-source-addr %s\n' "$net.3$n" "$net.3$n" >>"$home/redis-$n/redis.conf"
    run "redis-$n" redis-server "$home/redis-$n/redis.conf"
done
primary=${pids[0]}
for n in 1 2 3; do
    mkdir "$home/sentinel-$n"
    sed "s#/data#$home/sentinel-$n#" "$home/secrets/sentinel/sentinel.conf" >"$home/sentinel-$n/sentinel.conf"
    printf 'bind %s\nbind-source-addr %s\n' "$net.4$n" "$net.4$n" >>"$home/sentinel-$n/sentinel.conf"
    run "sentinel-$n" redis-server "$home/sentinel-$n/sentinel.conf" --sentinel
done

tools=$(dirname "$(realpath "$(command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | tail -n 1)")")
as=()
mkdir "$home/postgres"
if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid postgres --regid postgres --clear-groups)
    chmod 711 "$home/secrets" && chown -R postgres "$home/postgres" "$home/secrets/postgres"
fi
cd /
"${as[@]}" "$tools/initdb" -D "$home/postgres" -U postgres --pwfile="$home/secrets/postgres/admin" --data-checksums \
    --auth-local=trust --auth-host=scram-sha-256 >"$home/initdb.log"
run postgres "${as[@]}" "$tools/postgres" -D "$home/postgres" -h $net.20 -k "$home/postgres"
until_ok PostgreSQL "$tools/pg_isready" --quiet --host $net.20
sed "s#/secrets#$home/secrets/postgres#" "$here/postgres-init.sh" | PGHOST="$home/postgres" POSTGRES_USER=postgres sh >"$home/init.log"

for n in 1 2; do
    mkdir -m 700 "$home/node-$n"
    sed "s#172.31.241#$net#g; s#0.0.0.0:#$net.1$n:#; s#/var/lib/bartizan#$home/node-$n#; s#/secrets/#$home/secrets/bartizan/#" \
        "$here/bartizan.toml" >"$home/node-$n.toml"
    run "bartizan-$n" "$bartizan" serve --config "$home/node-$n.toml"
done
for n in 1 2; do until_ok "node $n" says "http://$net.1$n:9090/readyz" '"ready":true'; done
door=http://$net.11:8080
if command -v haproxy >/dev/null; then
    sed "s#172.31.241#$net#g; s#bind :8080#bind $net.10:8080#; s#^backend nodes#&\n    source $net.10#" "$here/haproxy.cfg" >"$home/haproxy.cfg"
    run haproxy haproxy -f "$home/haproxy.cfg"
    door=http://$net.10:8080
fi
password=$("$bartizan" tenant add acme --name Ada --email ada@acme.example --json --config "$home/node-1.toml" 2>/dev/null |
    sed 's/.*"password": *"\([^"]*\)".*/\1/')
login() {
    curl --silent --fail --max-time 10 "$door/v1/login" --header 'Content-Type: application/json' \
        --data "{\"tenant\":\"acme\",\"email\":\"ada@acme.example\",\"password\":\"$password\"}"
}
until_ok "a login" login
token=$(login | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
whoami() { curl --silent --fail --output /dev/null --max-time 5 "http://$net.1$1:8080/v1/whoami" --header "Authorization: Bearer $token"; }
whoami 1 && whoami 2 && echo "both nodes know the token"

kill -9 "$primary"
began=$SECONDS
until_ok "the loss of Redis is noticed" says "http://$net.11:9090/readyz" '"state":"down"'
whoami 1 && whoami 2 && echo "both answer without Redis"
until_ok "another primary" says "http://$net.11:9090/readyz" '"state":"up"'
whoami 1 && whoami 2 && echo "another primary after $((SECONDS - began)) s, both answer"
