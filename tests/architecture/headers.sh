#!/usr/bin/env bash
# headers.sh TOP: each public header compiles alone, as C11 and as C++17, without a warning.
set -euo pipefail
top=$1
for header in "$top"/include/prefopt/*.h; do
    name=prefopt/$(basename "$header")
    printf '#include <%s>\nint main(void) { return prefopt_version() == 0; }\n' "$name" |
        gcc -std=c11 -Wall -Wextra -pedantic -Werror -I"$top/include" -fsyntax-only -x c - ||
        { echo "$name does not compile alone as C"; exit 1; }
    printf '#include <%s>\nint main() { return prefopt_version() == 0; }\n' "$name" |
        g++ -std=c++17 -Wall -Wextra -pedantic -Werror -I"$top/include" -fsyntax-only -x c++ - ||
        { echo "$name does not compile alone as C++"; exit 1; }
done
