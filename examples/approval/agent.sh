#!/bin/sh
# An agent that asks before it publishes: each call goes through `runledger hook`, as Claude Code's and Codex's do. It gets
# the prompt on standard input, and hears there why it was denied what it asked for in the turn before.
set -eu
prompt=$(cat)
runledger=${RUNLEDGER:-runledger}

# Asks the rules, or a person, whether a command may run; Claude Code's payload, and its answer.
may_run() {
    answer=$(printf '{"hook_event_name":"PreToolUse","session_id":"%s","cwd":"%s","tool_name":"Bash","tool_input":{"command":"%s"},"tool_use_id":"call-%s-%s"}' \
        "$RUNLEDGER_RUN_ID" "$PWD" "$1" "$RUNLEDGER_ITERATION" "$2" | "$runledger" hook)
    case $answer in *'"permissionDecision":"allow"'*) return 0 ;; *) return 1 ;; esac
}

case $prompt in
*"was denied"*) figures='figures of this month' ;;
*) figures='figures of last month' ;;
esac
echo "the report has the $figures"
may_run "git add report.md" 1
if may_run "git push origin report" 2; then
    echo "published"
    printf '# Report\n\n- published with the %s\n\n<!-- WORKFLOW_COMPLETE -->\n' "$figures" > "$RUNLEDGER_TRACKER"
else
    echo "not published"
    printf '# Report\n\n- written with the %s, not published\n' "$figures" > "$RUNLEDGER_TRACKER"
fi
