# Sourced by examples/run, tests/run and .ci/run: installs the Debian packages that are missing.
#     install_missing PACKAGE...
install_missing() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        echo "Missing (Debian names): ${missing[*]}. Please install them." >&2
        return 1
    fi
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "Missing: ${missing[*]}. Neither root nor sudo: please install them." >&2
            return 1
        }
        sudo=(sudo)
    fi
    echo "Installing with apt: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${missing[@]}" >/dev/null
}

# What it takes to build the library and run the examples, and to run the tests.
build_packages=(gcc libc6-dev meson ninja-build pkg-config libblis-openmp-dev librandom123-dev
    liblbfgs-dev libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev)
mpi_packages=(libopenmpi-dev openmpi-bin)
example_packages=(gnuplot-nox python3 python3-numpy)
test_packages=(check g++ python3 python3-numpy gnuplot-nox binutils)

# configure DIR OPTION...: meson setup, once. Debian's meson and Python come first: another Python in
# the PATH may lack numpy.
configure() {
    local dir=$1
    shift
    [ -f "$dir/build.ninja" ] || meson setup "$dir" "$@" >"$dir.log" 2>&1 || {
        cat "$dir.log" >&2
        return 1
    }
    rm -f "$dir.log"
}
