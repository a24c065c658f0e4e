#!/bin/sh
# The bench's append, done by a Postgres server that PGHOST, PGDATABASE … name; starts none; see README.md.
set -eu

skip() {
    echo "postgres.sh: skipped, $1" >&2
    exit 77
}

fail() {
    echo "postgres.sh: $1" >&2
    exit 1
}

work=${1-}
[ $# -gt 0 ] && shift
count='' events='' sync=full writers=1 batch=1
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail "$1 needs a value"
    case $1 in
        --count) count=$2 ;;
        --events) events=$2 ;;
        --sync) sync=$2 ;;
        --writers) writers=$2 ;;
        --batch) batch=$2 ;;
        --dir | --rate) ;; # the server has a folder of its own, and no rate is kept
        *) fail "$1: no such option" ;;
    esac
    shift 2
done

command -v psql >/dev/null || skip "psql is not installed"
command -v pgbench >/dev/null || skip "pgbench is not installed"
PGCONNECT_TIMEOUT=5
export PGCONNECT_TIMEOUT
version=$(psql -XAtqc 'SHOW server_version' 2>/dev/null) || skip "no server answers"

[ "$work" = append ] || fail "$work: postgres.sh knows append"
[ -f "$events" ] || fail "--events $events: no such file"
for number in "$count" "$writers" "$batch"; do
    case $number in '' | 0 | *[!0-9]*) fail "--count, --writers and --batch are numbers above zero" ;; esac
done
case $sync in
    full) commit=on ;;
    # Like NORMAL, it keeps what a killed process had committed, and may lose the last of it with the power.
    normal) commit=off ;;
    *) fail "--sync $sync: full or normal" ;;
esac
[ "$(psql -XAtqc 'SHOW fsync')" = on ] || [ "$sync" = normal ] || fail "the server has fsync off: it is not full"
calls=$((count / writers / batch))
[ "$calls" -gt 0 ] || fail "$count events are no call for each of $writers writers"

# Nobody's table is dropped: the schema is made here, and its name has this process in it.
schema=runledger_bench_$$
scratch=$(mktemp -d)
clean() {
    psql -Xqc "DROP SCHEMA IF EXISTS $schema CASCADE" >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM
psql -Xq -v ON_ERROR_STOP=1 >/dev/null <<SQL
CREATE SCHEMA $schema;
CREATE TABLE $schema.events (
    position bigserial PRIMARY KEY,
    stream text NOT NULL,
    version bigint NOT NULL,
    kind text NOT NULL,
    data jsonb NOT NULL,
    UNIQUE (stream, version)
);
SQL

# One call, whose events go with it as they stand in the file; of the file's first events, so each call has the same.
# pgbench leaves the colons of the data alone: what follows them names no variable of its own.
{
    echo "INSERT INTO $schema.events (stream, version, kind, data) VALUES"
    awk -v batch="$batch" '
        { line[NR - 1] = $0 }
        NR == batch { exit }
        END {
            if (!NR) exit 1
            for (number = 0; number < batch; number++) {
                event = line[number % NR]
                if (!match(event, /^\{"kind":"[^"]*","data":/)) exit 1
                kind = substr(event, 10)
                kind = substr(kind, 1, index(kind, "\"") - 1)
                data = substr(event, RLENGTH + 1, length(event) - RLENGTH - 1)
                gsub(/\047/, "\047\047", kind)
                gsub(/\047/, "\047\047", data)
                printf "(\047session-:client_id\047, :peer_next_version + %d, \047%s\047, \047%s\047)%s\n", number, kind, data, \
                    number + 1 < batch ? "," : ";"
            }
        }' "$events" || fail "$events has a line that is not {\"kind\":…,\"data\":…}"
    echo "\\set peer_next_version :peer_next_version + $batch"
} >"$scratch/call.sql"

# Simple protocol: the prepared one would take each colon before a word for a parameter.
threads=$(getconf _NPROCESSORS_ONLN)
[ "$threads" -le "$writers" ] || threads=$writers
if ! (cd "$scratch" && PGOPTIONS="${PGOPTIONS-} -c synchronous_commit=$commit" pgbench --no-vacuum --client="$writers" \
    --jobs="$threads" --transactions="$calls" --define=peer_next_version=1 --file=call.sql --log >out 2>err); then
    cat "$scratch/err" >&2
    fail "pgbench failed"
fi
appended=$((calls * writers * batch))
found=$(psql -XAtqc "SELECT count(*) FROM $schema.events")
[ "$found" = "$appended" ] || fail "$found events are there, not $appended"
bytes=$(psql -XAtqc "SELECT pg_total_relation_size('$schema.events')")
rate=$(sed -n 's/^tps = \([0-9.]*\).*without initial connection time.*/\1/p' "$scratch/out")
[ -n "$rate" ] || fail "pgbench printed no rate"

# The third word of each line of its logs is the call's time in microseconds.
cat "$scratch"/pgbench_log.* | awk '{ print $3 }' | sort -n | awk -v events="$appended" -v calls="$((calls * writers))" \
    -v rate="$rate" -v bytes="$bytes" -v sync="$sync" -v version="PostgreSQL $version" '
    { latency[NR - 1] = $1 }
    function at(share) { return latency[int((NR - 1) * share + 0.5)] }
    END {
        printf "{\"events\":%d,\"seconds\":%.6f,\"p50_us\":%s,\"p99_us\":%s,\"max_us\":%s,\"bytes\":%s,\"sync\":\"%s\",\"version\":\"%s\"}\n",
            events, calls / rate, at(0.5), at(0.99), at(1), bytes, sync, version
    }'
