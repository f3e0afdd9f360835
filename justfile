# `just` lists the recipes. CI runs the same ones.

_default:
    @just --list

# Run the example end to end on this machine
demo:
    cargo run --locked -- up --once

# Run all tests that do not need Unit
test:
    cargo test --locked

# Run the tests against a real unitd: just test-unitd /usr/sbin/unitd
test-unitd unitd *args:
    PODSTRAP_TEST_UNITD={{unitd}} cargo test --locked --test it -- --ignored --skip unit::numbers:: unit:: cli::up:: {{args}}

# Measure the numbers of docs/unit.md: just unit-numbers /usr/sbin/unitd .../pkg/docker/docker-entrypoint.sh
unit-numbers unitd entrypoint="":
    PODSTRAP_TEST_UNITD={{unitd}} PODSTRAP_TEST_ENTRYPOINT={{entrypoint}} cargo test --locked --test it unit::numbers:: -- --ignored --nocapture --test-threads=1

# Kill init with SIGKILL at random times and before each step (needs strace): just crash 400
crash kills="400":
    PODSTRAP_TEST_KILLS={{kills}} cargo test --locked --test it volume::crash:: -- --ignored --nocapture --test-threads=1

# Kill Pods with SIGKILL while they read and write one store, in a directory and in a registry: just store 500
store kills="500":
    PODSTRAP_TEST_KILLS={{kills}} cargo test --locked --test it store::kills::hundreds -- --ignored --nocapture

# Follow a branch with a real Unit under load: pushes, kills, idle rounds, a fleet: just follow /usr/sbin/unitd
follow unitd pushes="200" kills="200" rounds="10000":
    PODSTRAP_TEST_UNITD={{unitd}} PODSTRAP_TEST_PUSHES={{pushes}} PODSTRAP_TEST_KILLS={{kills}} PODSTRAP_TEST_ROUNDS={{rounds}} cargo test --locked --test it unit::follow:: -- --ignored --nocapture --test-threads=1

# Attack runs of init as another user of the root's group, for so many seconds each (needs root): just neighbours 180
neighbours seconds="180":
    PODSTRAP_TEST_SECONDS={{seconds}} cargo test --locked --test it volume::neighbours:: -- --ignored --nocapture

# Run init on volumes that are or become full or read-only, and print a table: just faults 320
faults runs="320":
    PODSTRAP_TEST_FAULTS={{runs}} cargo test --locked --test it volume::faults::hundreds_of_full -- --ignored --nocapture

# Let system calls of init fail with EIO, ESTALE and others (needs strace), and print a table: just errnos 160
errnos runs="160":
    PODSTRAP_TEST_ERRNOS={{runs}} cargo test --locked --test it volume::errnos:: -- --ignored --nocapture

# Run 16 inits at once on one root, and kill some: just concurrent 6
concurrent rounds="6":
    PODSTRAP_TEST_ROUNDS={{rounds}} cargo test --locked --test it volume::concurrent:: -- --nocapture

# Build the Dockerfile's images and run them with podman, as root: just containers, just containers --reproducible
containers *args:
    tests/containers.sh {{args}}

# Run init 100 times with each engine over a network that fails at random; PODSTRAP_TEST_SEED=N repeats one run
network:
    cargo test --locked --test it -- --ignored --nocapture source::network::a_network_that_fails_at_random_many_times

# Install real apps with pip and uv from the machine's index, serve them from their final path, and print a table.
# PODSTRAP_TEST_UNITD=/usr/sbin/unitd also serves them with Unit; PODSTRAP_TEST_PYTHONS=/a/python:/b/python tries each
python *args:
    cargo test --locked --test it venv::real:: -- --ignored --nocapture --test-threads=1 {{args}}

# Check format, lints and rustdoc before a commit
check:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings
    cargo doc --locked --no-deps

# Build the release binary, and check that it is static, small and stripped
size: 
    cargo build --release --locked
    tests/static.sh

# Write the man pages, for example: just man ~/.local/share/man/man1
man dir:
    cargo run --locked --example man -- {{dir}}

# Build the wheel for PyPI, and run it from an empty environment
wheel:
    tests/wheel.sh

# Check the manifests, the chart and every podstrap command in them (needs a built podstrap)
manifests:
    tests/manifests.sh

# Measure podstrap against shell scripts, and write docs/performance.md; with names, only print these tables: just bench web
bench *tables:
    PODSTRAP_BENCH_WRITE=1 cargo bench --locked --bench boot -- {{tables}}

# Start 1, 2, 4, … inits at once, with and without a store, and write their section of docs/performance.md: just scale 64
scale most="64":
    PODSTRAP_BENCH_WRITE=1 cargo bench --locked --bench boot -- scale {{most}}

# Count instructions, system calls and bytes of fixed runs (needs valgrind and strace), and compare them with
# benches/boot/figures.json; PODSTRAP_BENCH_WRITE=1 writes this file
figures:
    cargo bench --locked --bench boot -- figures

# Check before a release that docs/performance.md was measured on this code
release-check:
    tests/performance.sh --release

# Check licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# Fuzz every parser with libFuzzer on stable Rust (needs g++): just fuzz 60 redact pktline
fuzz seconds="60" *targets:
    fuzz/run {{seconds}} {{targets}}
