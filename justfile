# `just` lists the recipes; CI and people run the same ones.

_default:
    @just --list

# The example, end to end, on this machine
demo:
    cargo run --locked -- up --once

# All tests that need no Unit
test:
    cargo test --locked

# The tests against a real unitd: just test-unitd /usr/sbin/unitd
test-unitd unitd *args:
    PODSTRAP_TEST_UNITD={{unitd}} cargo test --locked --test it -- --ignored --skip unit::numbers:: unit:: cli::up:: {{args}}

# The numbers of docs/unit.md: just unit-numbers /usr/sbin/unitd .../pkg/docker/docker-entrypoint.sh
unit-numbers unitd entrypoint="":
    PODSTRAP_TEST_UNITD={{unitd}} PODSTRAP_TEST_ENTRYPOINT={{entrypoint}} cargo test --locked --test it unit::numbers:: -- --ignored --nocapture --test-threads=1

# SIGKILL at hundreds of instants of init, and before each of its steps (needs strace): just crash 400
crash kills="400":
    PODSTRAP_TEST_KILLS={{kills}} cargo test --locked --test it volume::crash:: -- --ignored --nocapture --test-threads=1

# init on volumes that are full, read-only or become so, with a table: just faults 320
faults runs="320":
    PODSTRAP_TEST_FAULTS={{runs}} cargo test --locked --test it volume::faults::hundreds_of_full -- --ignored --nocapture

# 16 inits at once on one root, some of them killed: just concurrent 6
concurrent rounds="6":
    PODSTRAP_TEST_ROUNDS={{rounds}} cargo test --locked --test it volume::concurrent:: -- --nocapture

# The Dockerfile's images, built and run with podman, as root: just containers, just containers --reproducible
containers *args:
    tests/containers.sh {{args}}

# 100 runs with each engine through a network that fails at random; PODSTRAP_TEST_SEED=N is one of them
network:
    cargo test --locked --test it -- --ignored --nocapture source::network::a_network_that_fails_at_random_many_times

# Real apps with packages from the machine's index, by pip and uv, served from their final path, with a table;
# PODSTRAP_TEST_UNITD=/usr/sbin/unitd serves them by Unit too, PODSTRAP_TEST_PYTHONS=/a/python:/b/python has each tried
python *args:
    cargo test --locked --test it venv::real:: -- --ignored --nocapture --test-threads=1 {{args}}

# What a change must pass before it is committed
check:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings
    cargo doc --locked --no-deps

# The release binary is static, small and stripped
size: 
    cargo build --release --locked
    tests/static.sh

# The manifests and the chart, and every command of podstrap in them (needs a built podstrap)
manifests:
    tests/manifests.sh

# Against the article's recipe and the best script by hand; writes docs/performance.md
bench:
    PODSTRAP_BENCH_WRITE=1 cargo bench --locked --bench boot

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# Every parser of our own under libFuzzer, with stable Rust (needs g++): just fuzz 60 redact pktline
fuzz seconds="60" *targets:
    fuzz/run {{seconds}} {{targets}}
