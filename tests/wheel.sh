#!/usr/bin/env bash
# Builds the wheel in a directory (by default target/wheel), installs it into an empty environment, and runs podstrap and
# finds its man pages there.
set -euo pipefail
cd "$(dirname "$0")/.."
pins=(maturin==1.16.0 wheel==0.48.0)
tools=target/test-tools/wheel
if [ "$(cat "$tools/done" 2>/dev/null)" != "${pins[*]}" ]; then
  rm -rf "$tools"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "${pins[@]}"
  echo "${pins[*]}" >"$tools/done"
fi
out=${1:-target/wheel}
musl=musllinux_1_1_$(uname -m)
rm -rf "$out"
# maturin adds podstrap.data/data to the wheel.
empty=$(mktemp -d)
trap 'rm -rf "$empty" podstrap.data' EXIT
rm -rf podstrap.data
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) cargo run --locked --quiet --example man -- podstrap.data/data/share/man/man1
pages=$(cd podstrap.data/data && find . -name '*.1' | sort)
"$tools/venv/bin/maturin" build --release --compatibility manylinux2014 --out "$out"
# The binary is static, so it runs with musl too. maturin builds for one of both.
"$tools/venv/bin/wheel" tags --remove --platform-tag "+$musl" "$out"/*.whl
ls -l "$out"

python3 -m venv "$empty/venv"
pip=("$empty/venv/bin/pip" --quiet --disable-pip-version-check)
for platform in "$musl" "manylinux2014_$(uname -m)"; do
  "${pip[@]}" download --no-index --find-links "$out" --no-deps --only-binary :all: --platform "$platform" --dest "$empty" podstrap
done
"${pip[@]}" install --no-index --find-links "$out" podstrap
"$empty/venv/bin/podstrap" --version
installed=$(cd "$empty/venv" && find . -path '*/share/man/man1/podstrap*.1' | sort)
[ -n "$pages" ] && [ "$installed" = "$pages" ] || { echo "man pages of the wheel:" $installed "expected:" $pages >&2; exit 1; }
"$empty/venv/bin/podstrap" up --once | tee "$empty/answer"
grep -q 'Hello, World!' "$empty/answer"
