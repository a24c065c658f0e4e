#!/bin/sh
# Builds peer-eventsdb-full into OUT_DIR: eventsdb with synchronous=FULL, which its SQLite backend has no option for.
# One line of a copy of that backend is changed; the peer's own Cargo.lock stays as it is.
set -eu

crate=eventsdb-sqlite
line='PRAGMA synchronous = NORMAL;'
changed='PRAGMA synchronous = FULL;'

fail() {
    echo "eventsdb-full.sh: $1" >&2
    exit 1
}

[ $# -eq 1 ] || fail "usage: eventsdb-full.sh OUT_DIR"
mkdir -p "$1"
out=$(cd "$1" && pwd)
peers=$(cd "$(dirname "$0")" && pwd)
patched=$(dirname "$peers")/target/patched

# The bench may set a target folder; this build has one of its own, lest the two binaries take turns in it.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR

# The name of the manifest's folder ends with the version that Cargo.lock has.
manifest=$(cargo metadata --manifest-path "$peers/eventsdb/Cargo.toml" --locked --format-version 1 |
    tr ',' '\n' | sed -n "s|.*\"manifest_path\":\"\(.*/$crate-[0-9][^/]*/Cargo\.toml\)\".*|\1|p" | sort -u)
[ -f "$manifest" ] || fail "cargo metadata names no manifest of $crate: '$manifest'"

rm -rf "$patched/$crate" "$patched/peers"
mkdir -p "$patched/peers"
cp -R "$(dirname "$manifest")" "$patched/$crate"
cp -R "$peers/eventsdb" "$peers/protocol.rs" "$patched/peers/"

found=$(grep -rFc "$line" "$patched/$crate/src" | grep -v ':0$' || true)
case $found in
    *:1) file=${found%:1} ;;
    *) fail "'$line' is not in the sources of $crate exactly once: ${found:-nowhere}" ;;
esac
[ -f "$file" ] || fail "'$line' is in more than one file of $crate: $found"
sed "s/$line/$changed/" "$file" >"$file.changed"
mv "$file.changed" "$file"
grep -qF "$changed" "$file" || fail "the line in $file was not changed"

cd "$patched/peers/eventsdb"
cargo build --release --target-dir "$patched/target" --config "patch.crates-io.$crate.path=\"$patched/$crate\""
cp "$patched/target/release/peer-eventsdb" "$out/peer-eventsdb-full"
