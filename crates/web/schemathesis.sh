#!/usr/bin/env bash
# Asks /api/v1 whatever its description allows, and some that it does not: no server error, no status and no object that is not
# described. Needs Python 3 with venv, and PyPI for schemathesis; a program that is built already may be named.
#
#   crates/web/schemathesis.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=4.32.5
program=${1:-}
if [ -z "$program" ]; then
    cargo build --locked --quiet -p runledger-cli
    program=${CARGO_TARGET_DIR:-target}/debug/runledger
fi
program=$(realpath "$program")

place=$(mktemp -d)
server=
end() {
    [ -z "$server" ] || kill "$server" 2> /dev/null || true
    wait 2> /dev/null || true
    rm -rf "$place"
}
trap end EXIT

python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"

# A small ledger: a run with iterations and a tracker, one that failed, and a session with a tool call and a permission.
export RUNLEDGER_DB=$place/ledger.db HOME=$place
mkdir "$place/project"
cat > "$place/project/tidy.json" << 'JSON'
{"name": "tidy", "loop": {"enabled": true, "maxIterations": 3, "trackerPath": ".runledger/{sessionId}/tracker.md"}}
JSON
cat > "$place/agent.sh" << 'SH'
if [ "$RUNLEDGER_ITERATION" -ge 2 ]; then last='<!-- WORKFLOW_COMPLETE -->'; else last='more to do'; fi
printf '# Plan\n%s\n' "$last" > "$RUNLEDGER_TRACKER"
SH
"$program" exec --project-dir "$place/project" --workflow "$place/project/tidy.json" --session demo 'tidy up' -- \
    sh "$place/agent.sh" > /dev/null 2>&1
"$program" exec --project-dir "$place/project" --session demo 'fail' -- sh -c 'exit 3' > /dev/null 2>&1 || true
"$program" ingest --format runtime --session told > /dev/null << 'JSONL'
{"id":"t1","timestamp":1761000000000,"kind":"session.start","sessionId":"a1","data":{"source":"startup","model":"m"}}
{"id":"t2","timestamp":1761000000100,"kind":"user.prompt","sessionId":"a1","data":{"prompt":"tidy the flaky test"}}
{"id":"t3","timestamp":1761000000200,"kind":"tool.pre","sessionId":"a1","data":{"tool_name":"Bash","tool_use_id":"toolu_1","tool_input":{"command":"cargo test"}}}
{"id":"t4","timestamp":1761000000300,"kind":"permission.request","sessionId":"a1","data":{"tool_name":"Bash","tool_use_id":"toolu_1","tool_input":{"command":"cargo test"}}}
{"id":"t5","timestamp":1761000000400,"kind":"message.complete","sessionId":"a1","data":{"message":"done"}}
JSONL

export RUNLEDGER_TOKEN=schemathesis-on-loopback
"$program" serve --port 0 --json > "$place/serve.json" 2> "$place/serve.log" &
server=$!
for _ in $(seq 200); do
    [ ! -s "$place/serve.json" ] || break
    sleep 0.1
done
address=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["address"])' < "$place/serve.json")

# Asks with this file of settings.
ask() {
    "$place/venv/bin/schemathesis" --config-file "$1" run "http://$address/api/v1/openapi.json" \
        --header "Authorization: Bearer $RUNLEDGER_TOKEN" \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
        --max-examples "${EXAMPLES:-30}" --request-timeout 30 --seed 1 --no-color --warnings off
}

cd "$place"
failed=0
echo "== any name"
: > any.toml
ask any.toml || failed=$?
echo "== what is there"
run=$("$program" runs --json --status completed --limit 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
cat > there.toml << TOML
[parameters]
"path.id" = "$run"
"path.name" = "toolu_1"
"path.position" = 3
TOML
ask there.toml || failed=$?
# It has to be there still.
kill -0 "$server" || { echo "the server ended:" >&2; cat "$place/serve.log" >&2; exit 1; }
exit "$failed"
