#!/bin/sh
# Compares the code of a start with the code that docs/performance.md was measured on. Only warns if they differ, because
# the page is written for a release; with --release it fails. --hash prints the hash of the code.
set -eu
cd "$(dirname "$0")/.."
code="src/archive src/source src/store src/venv src/volume src/command.rs src/dir.rs src/files.rs src/http.rs src/init.rs
  src/prepare.rs src/runtime.rs src/tree.rs src/walk.rs"
# shellcheck disable=SC2086
hash=$(find $code -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c 1-16)
if [ "${1-}" = --hash ]; then echo "$hash"; exit; fi
if grep -qF "\`$hash\`" docs/performance.md; then echo "docs/performance.md was measured on this code"; exit; fi
echo "docs/performance.md was measured on other code: \`just bench\` writes it anew, before a release" >&2
[ "${1-}" != --release ]
