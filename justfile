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

# Takes over changed snapshots, after a look at each
snapshots:
    INSTA_UPDATE=always cargo test --workspace --locked
    git diff --stat -- '*.snap'
