#!/bin/sh
# A small agent that takes stock of the Rust crates below the project directory: one crate a turn, until none is left.
#
# It keeps its plan in the tracker (RUNLEDGER_TRACKER), as any agent of a loop does, and writes inventory.md beside it.
set -eu

tracker=$RUNLEDGER_TRACKER
report=$(dirname "$tracker")/inventory.md

if grep -q TRACKER_SKELETON "$tracker"; then
    {
        echo '# Inventory'
        echo
        find . -name Cargo.toml -not -path './target/*' | sort | sed 's|^\./||' | while read -r manifest; do
            grep -q '^\[package\]' "$manifest" && echo "- [ ] $(dirname "$manifest")"
        done
    } > "$tracker.new"
    mv "$tracker.new" "$tracker"
    printf '| crate | files | lines | public items | tests |\n| --- | ---: | ---: | ---: | ---: |\n' > "$report"
    echo "planned: $(grep -c '^- \[ \]' "$tracker") crates to look at"
    exit 0
fi

crate=$(sed -n 's/^- \[ \] //p' "$tracker" | head -n 1)
if [ -n "$crate" ]; then
    sources=$(find "$crate" -name '*.rs' -not -path '*/target/*')
    files=$(echo "$sources" | grep -c . || true)
    lines=0 items=0 tests=0
    if [ "$files" -gt 0 ]; then
        lines=$(cat $sources | wc -l | tr -d ' ')
        items=$(cat $sources | grep -cE '^ *pub (fn|struct|enum|trait|const|type) ' || true)
        tests=$(cat $sources | grep -cE '^ *#\[test\]' || true)
    fi
    echo "| $crate | $files | $lines | $items | $tests |" >> "$report"
    sed "s|^- \[ \] $crate\$|- [x] $crate: $lines lines|" "$tracker" > "$tracker.new"
    mv "$tracker.new" "$tracker"
    echo "$crate: $files files, $lines lines, $items public items, $tests tests"
fi

if ! grep -q '^- \[ \]' "$tracker"; then
    printf '\nThe table is in %s.\n\n<!-- WORKFLOW_COMPLETE -->\n' "$report" >> "$tracker"
    echo "done: the table is in $report"
fi
