#!/bin/sh
# Makes every secret and what holds one, once; later runs change nothing. Runs in a container without a network, as root, so
# that each file can belong to whom it is for. One volume for each kind of server: none sees what another needs.
set -eu
umask 077
bartizan=${1:-/out/bartizan} postgres=${2:-/out/postgres} redis=${3:-/out/redis} sentinel=${4:-/out/sentinel}
redis_1=${REDIS_1:-172.31.241.31} redis_2=${REDIS_2:-172.31.241.32}

word() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
digest() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

# Written last: a start that was cut short begins again, and nobody has used what it left.
if [ -e "$bartizan/complete" ]; then
    echo "the secrets are there"
    exit 0
fi
rm -rf "$bartizan/keys" "$bartizan/passwords" "$bartizan/init"
for place in "$postgres" "$redis" "$sentinel"; do find "$place" -mindepth 1 -delete; done

${BARTIZAN:-bartizan} init --dir "$bartizan/init" >/dev/null
mv "$bartizan/init/secrets" "$bartizan/keys"
rm -r "$bartizan/init"

of_postgres=$(word) of_admin=$(word) of_redis=$(word) of_replica=$(word) of_watch=$(word) of_sentinel=$(word)
mkdir "$bartizan/passwords"
printf %s "$of_postgres" >"$bartizan/passwords/postgres"
printf %s "$of_redis" >"$bartizan/passwords/redis"
printf %s "$of_sentinel" >"$bartizan/passwords/sentinel"

printf %s "$of_admin" >"$postgres/admin"
printf %s "$of_postgres" >"$postgres/bartizan"

# The nodes may run scripts on keys of their prefix, and nothing else. The digest of a password is enough for the server.
cat >"$redis/users.acl" <<END
user default off
user bartizan on #$(digest "$of_redis") resetkeys ~bz:* resetchannels -@all +eval +evalsha +info +ping +time +config|get +get +mget +set +del +pexpire +zadd +zcard +zrem +zremrangebyscore
user replica on #$(digest "$of_replica") resetkeys resetchannels -@all +psync +replconf +ping
user watch on #$(digest "$of_watch") resetkeys resetchannels &__sentinel__:hello -@all +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill
END
for number in 1 2; do
    cat >"$redis/redis-$number.conf" <<END
port 6379
dir /data
aclfile /secrets/users.acl
masteruser replica
masterauth $of_replica
# Limits and bans are worth nothing when forgotten under pressure: rather refuse, and let the nodes count alone.
maxmemory 512mb
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
# With two replicas or more, set 1: see docs/operate/cluster.md. With one it would stop all writing when either is gone.
min-replicas-to-write 0
END
done
printf 'replicaof %s 6379\n' "$redis_1" >>"$redis/redis-2.conf"

cat >"$sentinel/sentinel.conf" <<END
port 26379
dir /data
# Of the sentinels among themselves and for the nodes; it lets nobody into a Redis.
requirepass $of_sentinel
sentinel monitor bartizan $redis_1 6379 2
sentinel auth-user bartizan watch
sentinel auth-pass bartizan $of_watch
# Not below 3000: a node cut off together with the old primary lets go of it after two seconds.
sentinel down-after-milliseconds bartizan 5000
sentinel failover-timeout bartizan 30000
sentinel parallel-syncs bartizan 1
# By address only: a name that a stopped container takes along would stop the sentinels, too.
sentinel resolve-hostnames no
sentinel announce-hostnames no
sentinel deny-scripts-reconfig yes
END

if [ "$(id -u)" = 0 ] && [ -z "${KEEP_OWNER:-}" ]; then
    chown -R 10001:10001 "$bartizan"
    chown -R 999:999 "$postgres" "$redis" "$sentinel"
fi
: >"$bartizan/complete"
echo "made the secrets: back up the volume of the nodes, apart from the database"
