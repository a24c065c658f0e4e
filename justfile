# The commands that CI runs, by name.

# Everything that CI checks
ci:
    bash .ci/run

# Builds and runs the example workflow
quickstart:
    sh examples/quickstart.sh

# All tests
test:
    cargo test --workspace --locked

# Formatting, lints and docs, warnings denied
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# libFuzzer on every target, for so many seconds each
fuzz seconds='60':
    fuzz/run --seconds {{seconds}}

# Licences, versions and sources of dependencies
deny:
    cargo deny --locked check licenses bans sources

# Takes over changed snapshots, after a look at each
snapshots:
    INSTA_UPDATE=always cargo test --workspace --locked
    git diff --stat -- '*.snap'
