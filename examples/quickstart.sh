#!/bin/sh
# Builds runledger, runs the workflow of examples/inventory on this workspace, and shows the run.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked --quiet --package runledger-cli
RUNLEDGER_DB=$PWD/target/quickstart/ledger.db
PATH=$PWD/target/release:$PATH
export RUNLEDGER_DB PATH
runledger exec --workflow examples/inventory/workflow.json 'Take stock of the crates' -- examples/inventory/agent.sh
echo
runledger runs
echo
runledger show "$(runledger runs --json --limit 1 | sed 's/.*"id":"\([^"]*\)".*/\1/')"
echo
runledger verify
