#!/usr/bin/env bash
# headers.sh TOP: each public header compiles alone, as C11 and as C++17, without a warning.
set -euo pipefail
top=$1
for header in "$top"/include/prefopt/*.h; do
    name=prefopt/$(basename "$header")
    flags=
    if [ "$name" = prefopt/mpi.h ]; then
        # MPI's own headers are not held to our warnings.
        flags=$(pkg-config --cflags-only-I mpi-c 2>/dev/null | sed 's/-I/-isystem /g') || continue
    fi
    # shellcheck disable=SC2086
    printf '#include <%s>\nint main(void) { return prefopt_version() == 0; }\n' "$name" |
        gcc -std=c11 -Wall -Wextra -pedantic -Werror -I"$top/include" $flags -fsyntax-only -x c - ||
        { echo "$name does not compile alone as C"; exit 1; }
    # shellcheck disable=SC2086
    printf '#include <%s>\nint main() { return prefopt_version() == 0; }\n' "$name" |
        g++ -std=c++17 -Wall -Wextra -pedantic -Werror -I"$top/include" $flags -fsyntax-only -x c++ - ||
        { echo "$name does not compile alone as C++"; exit 1; }
done
