#!/bin/sh
# Checks that the release binary is static, stripped, at most 18 MB, and runs in an empty root.
set -eu
binary=$(ls -t target/*/release/podstrap | head -n 1)
size=$(wc -c <"$binary")
echo "$binary: $size bytes"
[ "$size" -le 18000000 ] || { echo "larger than 18 MB" >&2; exit 1; }
if readelf -lW "$binary" | grep -q INTERP; then echo "needs a dynamic loader" >&2; exit 1; fi
if readelf -dW "$binary" | grep -q NEEDED; then echo "needs shared libraries" >&2; exit 1; fi
if readelf -SW "$binary" | grep -q '\.symtab'; then echo "is not stripped" >&2; exit 1; fi
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cp "$binary" "$empty/podstrap"
# Without the right to chroot, use a user namespace. Fails where neither is allowed.
if [ "$(id -u)" = 0 ]; then chroot "$empty" /podstrap --version; else unshare -r chroot "$empty" /podstrap --version; fi
