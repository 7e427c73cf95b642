#!/usr/bin/env bash
# installed.sh TOP BUILD: installs into a temporary prefix and builds a C and a C++ program against it
# by pkg-config, shared and (C) static, as a user would; and a C program against prefopt-mpi, where
# that was built.
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

if [ -f "$(dirname "$pc")/prefopt-mpi.pc" ]; then
    # The installed prefix stands before MPI's own folders, which keep theirs.
    mpi() { PKG_CONFIG_PATH=$(dirname "$pc") pkg-config "$@" prefopt-mpi; }
    cp "$top/tests/architecture/outside_mpi.c" "$tmp/outside_mpi.c"
    # shellcheck disable=SC2046
    gcc -Wall -Wextra -Werror "$tmp/outside_mpi.c" -o "$tmp/mpi" -I"$prefix/include" -L"$libdir" \
        $(mpi --cflags) $(mpi --libs)
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    LD_LIBRARY_PATH=$libdir "$tmp/mpi"
    if command -v mpirun >/dev/null; then
        OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_plm_rsh_agent=/bin/false \
            LD_LIBRARY_PATH=$libdir mpirun -n 2 "$tmp/mpi"
    fi
    readelf -d "$libdir/libprefopt-mpi.so" | grep -q 'SONAME.*libprefopt-mpi\.so\.0'
fi
