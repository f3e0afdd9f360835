#!/usr/bin/env bash
# Builds the Dockerfile's images and base images to run them with, then runs tests/it/cli/containers.rs.
#
#   tests/containers.sh                     as root; PODSTRAP_TEST_UNITD=/usr/sbin/unitd runs Unit inside
#   tests/containers.sh --images            only builds
#   tests/containers.sh --reproducible      builds the binary again from scratch and compares
#
# Fetches no image: builds the base images from Debian's packages, with this machine's compiler and
# crates. The builds have no network.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'containers: %s\n' "$*"; }
work=$PWD/target/containers
mkdir -p "$work"
name=localhost/podstrap-test
suite=bookworm

cat >"$work/containers.conf" <<EOF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
EOF
export CONTAINERS_CONF=$work/containers.conf
if [ "$(id -u)" != 0 ] || ! podman info >"$work/podman.log" 2>&1; then
  say "podman does not work here, so the images cannot be built:" >&2
  cat "$work/podman.log" >&2
  say "PODSTRAP_TEST_NO_CONTAINERS=1 leaves these tests out" >&2
  exit 1
fi

# --- base images, kept from run to run ---------------------------------------------------------------
path='ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

# Debian-like: what an app's image has, and what Unit's binary needs.
if ! podman image exists $name/python:3.11; then
  say "make a base image like Debian's"
  rm -rf "$work/debian"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip,libpcre2-8-0,libpython3.11 \
    $suite "$work/debian" >"$work/debootstrap.log" 2>&1 || { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
  rm -rf "$work"/debian/var/cache/apt/archives/*.deb "$work"/debian/var/lib/apt/lists/*
  tar -C "$work/debian" -c . | podman import --quiet --change "$path" - $name/python:3.11 >/dev/null
  rm -rf "$work/debian"
fi

# Alpine-like: busybox, musl, and a CPython built against it from Debian's sources.
if ! podman image exists $name/musl:3.11; then
  say "make a base image like Alpine's"
  musl=$work/musl
  rm -rf "$musl" && mkdir -p "$musl"/{apt/etc/apt.conf.d,apt/etc/preferences.d,apt/lists/partial,apt/cache/archives/partial,zlib,python,root/bin,root/lib,root/tmp,root/etc}
  cat >"$musl/apt/apt.conf" <<EOF
Dir::Etc "$musl/apt/etc";
Dir::State::lists "$musl/apt/lists";
Dir::Cache "$musl/apt/cache";
APT::Sandbox::User "root";
EOF
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$musl/apt/etc/sources.list"
  (
    cd "$musl"
    export APT_CONFIG=$musl/apt/apt.conf
    apt-get update -q && apt-get source -q --only-source --download-only python3.11 zlib
    unset APT_CONFIG
    tar -xf zlib_*.orig.tar.* -C zlib --strip-components=1
    tar -xf python3.11_*.orig.tar.* -C python --strip-components=1
    (cd zlib && CC=musl-gcc CFLAGS='-O1 -fPIC' ./configure --static --prefix="$musl/installed" && make -j"$(nproc)" install)
    # CPython asks its compiler for the C library's name, and musl-gcc gives that of the gcc below it.
    cat >cc <<'EOF'
#!/bin/sh
case $* in -print-multiarch | --print-multiarch) exec echo "$(uname -m)-linux-musl" ;; esac
exec musl-gcc "$@"
EOF
    chmod +x cc
    cd python
    ./configure --build="$(uname -m)-pc-linux-musl" CC="$musl/cc" CFLAGS=-O1 CPPFLAGS="-I$musl/installed/include" LDFLAGS="-L$musl/installed/lib" \
      --prefix=/usr/local --without-ensurepip --disable-test-modules
    make -j"$(nproc)"
    make install DESTDIR="$musl/root"
  ) >"$work/musl.log" 2>&1 || { tail -n 20 "$work/musl.log" >&2; exit 1; }
  cp /bin/busybox "$musl/root/bin/busybox"
  for applet in sh ls cat env sleep; do ln -s busybox "$musl/root/bin/$applet"; done
  cp -a /usr/lib/"$(uname -m)"-linux-musl/libc.so "$musl/root/lib/ld-musl-$(uname -m).so.1"
  rm -rf "$musl"/root/usr/local/lib/python3.11/{test,config-*,idlelib,lib2to3,tkinter} "$musl"/root/usr/local/lib/libpython*.a
  tar -C "$musl/root" -c . | podman import --quiet --change "$path" - $name/musl:3.11 >/dev/null
  rm -rf "$musl"
fi

# The compiler is this machine's, mounted for the build; the image has the linker and the C library.
if ! podman image exists $name/rust:latest; then
  say "make an image to compile in"
  podman build --quiet --network=host --pull=never -t $name/rust - >/dev/null <<EOF
FROM $name/python:3.11
RUN apt-get update -q && apt-get install -qy --no-install-recommends gcc libc6-dev
ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true PATH=/usr/local/rust/bin:/usr/bin:/bin
EOF
fi

# --- what the builds and the tests would fetch -------------------------------------------------------
cargo fetch --locked
wheels=$work/wheels
if [ ! -e "$work/wheels.done" ]; then
  say "fetch wheels"
  rm -rf "$wheels"
  fetch() { python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version=3.11 -d "$wheels" "$@"; }
  fetch flask==3.1.2 werkzeug==3.1.3 jinja2==3.1.6 click==8.1.8 blinker==1.9.0 itsdangerous==2.2.0
  fetch --platform="manylinux_2_17_$(uname -m)" --platform="manylinux2014_$(uname -m)" markupsafe==3.0.2
  fetch --platform="musllinux_1_2_$(uname -m)" markupsafe==3.0.2
  fetch --platform="musllinux_1_1_$(uname -m)" "uv==$(sed -n 's/^ARG UV=//p' Dockerfile)"
  touch "$work/wheels.done"
fi
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$work/pip.conf"

# --- the Dockerfile's targets ------------------------------------------------------------------------
build() { # build TARGET TAG OPTION…
  local target=$1 tag=$2
  shift 2
  say "build $target"
  podman build --pull=never --network=none --target "$target" -t "$tag" "$@" \
    --build-arg RUST=$name/rust --build-arg BASE=$name/python:3.11 \
    -v "$(rustc --print sysroot):/usr/local/rust:ro" -v "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry:ro" \
    -v "$wheels:/wheels:ro" -v "$work/pip.conf:/etc/pip.conf:ro" . >"$work/build-$target.log" 2>&1 \
    || { tail -n 30 "$work/build-$target.log" >&2; exit 1; }
}
for target in scratch uv python; do build $target $name/podstrap:$target; done

if [ "${1:-}" = --reproducible ]; then
  build build $name/again --no-cache
  sum() { sha256sum <"$(podman image mount "$1")/$2" && podman image unmount "$1" >/dev/null; }
  sums=$(sum $name/podstrap:scratch bin/podstrap && sum $name/again podstrap)
  echo "$sums"
  [ "$(sort -u <<<"$sums" | wc -l)" = 1 ] || { say "two builds differ" >&2; exit 1; }
  exit
fi
[ "${1:-}" != --images ] || exit 0

[ -n "${PODSTRAP_TEST_UNITD:-}" ] || say "PODSTRAP_TEST_UNITD names no unitd: the app runs under Python's own server, a fake of Unit takes the hook's configuration"
PODSTRAP_TEST_WHEELS=$wheels cargo test --locked --test it cli::containers:: -- --ignored
