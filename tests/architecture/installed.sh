#!/usr/bin/env bash
# installed.sh TOP BUILD: installs into a temporary prefix and builds a C and a C++ program against it
# by pkg-config, shared and (C) static, as a user would.
set -euo pipefail
top=$1 build=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
meson install -C "$build" --no-rebuild --destdir "$tmp" --quiet >/dev/null
pc=$(find "$tmp" -name prefopt.pc)
libdir=$(dirname "$(dirname "$pc")")
prefix=$tmp/$(pkg-config --variable=prefix "$pc")
flags() { PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --define-variable=prefix="$prefix" "$@" prefopt; }
cp "$top/tests/architecture/outside.c" "$tmp/outside.c"
cp "$top/tests/architecture/outside.c" "$tmp/outside.cc"
# shellcheck disable=SC2046
gcc -Wall -Wextra -Werror "$tmp/outside.c" -o "$tmp/c" $(flags --cflags --libs)
# shellcheck disable=SC2046
g++ -Wall -Wextra -Werror "$tmp/outside.cc" -o "$tmp/cc" $(flags --cflags --libs)
LD_LIBRARY_PATH=$libdir "$tmp/c"
LD_LIBRARY_PATH=$libdir "$tmp/cc"
# shellcheck disable=SC2046
gcc "$tmp/outside.c" -o "$tmp/static" $(flags --cflags) "$libdir/libprefopt.a" \
    $(flags --static --libs-only-l | sed 's/-lprefopt//') -lm -lpthread
"$tmp/static"
readelf -d "$libdir/libprefopt.so" | grep -q 'SONAME.*libprefopt\.so\.0'
