#!/usr/bin/env bash
# Sets up what the virtual board needs on Debian and Ubuntu: QEMU, llvm-mca, the AArch64 compiler,
# and an AArch64 root folder with a Python and wheels, for the emulated board and the peers.
#
#     sudo tools/setup_virtual_board.sh [--root FOLDER] [--no-packages] [--no-root] [SITE...]
#
# Without SITE, every line of tools/aarch64_wheels.txt is installed. The root lies in MFN_SYSROOT,
# or in virtual-board/sysroot of the cache folder (under sudo: that of the user who called it).
# What is there already is left alone. Wrong usage exits 2, anything that fails 1.
set -euo pipefail
wheels=$(cd "$(dirname "$0")" && pwd)/aarch64_wheels.txt

packages=(qemu-user gcc libc6-dev gcc-aarch64-linux-gnu g++-aarch64-linux-gnu debootstrap)
suite=bookworm # its Python is 3.11, for which all peers have wheels
mirror=${MFN_DEBIAN_MIRROR:-http://deb.debian.org/debian}
home=$HOME
[ -z "${SUDO_USER:-}" ] || home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
cache=${MFN_CACHE_DIR:-${XDG_CACHE_HOME:-$home/.cache}/mfn-compile}
root=${MFN_SYSROOT:-$cache/virtual-board/sysroot}
wanted_packages=1 wanted_root=1 sites=()

fail() {
    echo "setup_virtual_board: $*" >&2
    exit 1
}

misused() {
    echo "setup_virtual_board: $*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --root)
            [ $# -gt 1 ] || misused "--root needs a folder"
            root=$2
            shift
            ;;
        --no-packages) wanted_packages=0 ;;
        --no-root) wanted_root=0 ;;
        -h | --help)
            sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
        -*) misused "there is no option $1; see --help" ;;
        *) sites+=("$1") ;;
    esac
    shift
done

install_packages() {
    [ "$(id -u)" = 0 ] || fail "packages need root: run with sudo, or with --no-packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends "${packages[@]}" > /dev/null
    # Which llvm-mca there is depends on the release; 19 is the oldest that knows its own models.
    for version in 22 21 20 19; do
        apt-get install -qq --yes --no-install-recommends "llvm-$version" > /dev/null 2>&1 && return
    done
    echo "setup_virtual_board: no llvm-mca of 19 or newer here: no Cortex-A72 and -A76" >&2
}

# A mirror's packages unpacked beside the place and renamed when whole: a killed run leaves no root.
make_root() {
    [ -x "$root/usr/bin/python3.11" ] && return
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root: run with sudo, or with --no-root"
    mkdir -p "$(dirname "$root")"
    local aside
    aside=$(mktemp -d "$(dirname "$root")/.sysroot.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libgomp1,libstdc++6 \
        "$suite" "$aside/root" "$mirror" > "$aside/log" 2>&1 || {
        tail -n 5 "$aside/log" >&2
        fail "debootstrap failed"
    }
    for package in "$aside"/root/var/cache/apt/archives/*.deb; do
        dpkg --extract "$package" "$aside/root"
    done
    rm -rf "$aside"/root/var/cache/apt/archives "$aside"/root/debootstrap
    mkdir -p "$aside/root/opt"
    # An emulated Python that has to compile its library takes minutes to import it.
    local python=(qemu-aarch64 -L "$aside/root" "$aside/root/usr/bin/python3.11")
    command -v python3.11 > /dev/null && python=(python3.11)
    "${python[@]}" -m compileall -q "$aside/root/usr/lib/python3.11" > /dev/null || true
    chmod -R a+rX "$aside/root"
    mv "$aside/root" "$root"
    rm -rf "$aside"
    trap - EXIT
}

install_site() {
    local name=$1 line place platforms=() glibc aside
    line=$(grep -E "^$name " "$wheels")
    place=$root/opt/site-$name
    [ -f "$place/.wheels" ] && [ "$(cat "$place/.wheels")" = "$line" ] && return
    for glibc in 36 35 34 31 28 27 26 24 17; do
        platforms+=(--platform "manylinux_2_${glibc}_aarch64")
    done
    aside=$root/opt/.site-$name.$$
    # shellcheck disable=SC2086 - requirements are words
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$aside" \
        --python-version 311 --implementation cp --only-binary :all: \
        "${platforms[@]}" --platform manylinux2014_aarch64 --platform any ${line#"$name"}
    echo "$line" > "$aside/.wheels"
    rm -rf "$place"
    mv "$aside" "$place"
}

known=$(grep -v '^#' "$wheels" | cut -d' ' -f1 | xargs)
for site in "${sites[@]}"; do
    [[ " $known " == *" $site "* ]] || misused "there are no wheels of $site; there are: $known"
done
[ ${#sites[@]} = 0 ] || [ $wanted_root = 1 ] || misused "--no-root installs no wheels"
root=$(realpath -m "$root")

[ $wanted_packages = 0 ] || install_packages
if [ $wanted_root = 1 ]; then
    make_root
    if [ ${#sites[@]} = 0 ]; then
        read -ra sites <<< "$known"
    fi
    for site in "${sites[@]}"; do
        install_site "$site"
    done
    [ -z "${SUDO_USER:-}" ] || chown -R "$SUDO_USER:" "$root"
    echo "The AArch64 root is $root, with $(cd "$root/opt" && echo site-*)"
    [ "$root" = "$cache/virtual-board/sysroot" ] || echo "mfn-compile finds it by MFN_SYSROOT=$root"
fi
