#!/usr/bin/env bash
# Builds wolfSSL from source: native/build.sh OUTDIR [MACHINE] writes OUTDIR/libwolfssl.so and OUTDIR/version.
# MACHINE is x86_64 or aarch64; another than this one needs a cross-compiler (Debian: gcc-aarch64-linux-gnu).
# The same source and compiler give the same bytes, whatever the folder. Its name must not be among the flags: the library
# contains those that it was built with (HAVE_WC_INTROSPECTION).
# The source comes from the first that works: the mirror apt is configured with (pinned SHA-256), the upstream git
# tag (pinned commit), the source package of the mirror's stable suite (verified by apt, older, no ML-KEM).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
# shellcheck source=wolfssl.pin
. "$here/wolfssl.pin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

say() { printf 'native: %s\n' "$*"; }

# URIs of Debian archives in apt's own configuration; security archives carry no pool of their own.
mirrors() {
    local deb822=(/etc/apt/sources.list.d/*.sources) lines=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list)
    {
        sed -n 's/^URIs:[[:space:]]*//p' "${deb822[@]}" 2>/dev/null || true
        sed -n -E 's/^deb(-src)?[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\3/p' "${lines[@]}" 2>/dev/null || true
    } | tr -s ' ' '\n' | grep -E '^https?://' | grep -v -- security | awk '!seen[$0]++'
}

from_mirror() {
    [ -x /usr/lib/apt/apt-helper ] || return 1
    local mirror file=wolfssl_$version.orig.tar.gz
    for mirror in $(mirrors); do
        # apt's own downloader: it knows the machine's proxy and refuses a file with another SHA-256.
        if /usr/lib/apt/apt-helper -o Acquire::Retries=3 download-file "${mirror%/}/pool/main/w/wolfssl/$file" \
            "$work/$file" "SHA256:$sha256" >mirror.log 2>&1; then
            echo "$sha256  $file" | sha256sum --check --quiet
            mkdir src && tar -xzf "$file" -C src --strip-components=1
            return 0
        fi
        grep -h '^[EW]:.*\(Hash\|40[0-9]\|resolve\|connect\)' mirror.log || true
    done
    return 1
}

from_git() {
    command -v git >/dev/null || return 1
    GIT_TERMINAL_PROMPT=0 timeout 120 git -c advice.detachedHead=false clone --quiet --depth 1 \
        --branch "v$version-stable" "$upstream" src || return 1
    [ "$(git -C src rev-parse HEAD)" = "$commit" ] && return 0
    say "the upstream tag v$version-stable is not the pinned commit $commit: refused"
    rm -rf src
    return 1
}

from_stable() {
    command -v apt-get >/dev/null || return 1
    if ! command -v dpkg-source >/dev/null; then
        [ "$(id -u)" = 0 ] || { say "dpkg-source is missing (package dpkg-dev)"; return 1; }
        say "installing with apt: dpkg-dev"
        apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends dpkg-dev >/dev/null || return 1
    fi
    local mirror apt
    for mirror in $(mirrors); do
        printf 'deb-src %s stable main\n' "$mirror" >stable.list
        mkdir -p lists/partial cache/archives/partial
        apt=(apt-get -q -o Acquire::Retries=3 -o "Dir::Etc::sourcelist=$work/stable.list" -o Dir::Etc::sourceparts=-
            -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
        if "${apt[@]}" update >stable.log 2>&1 && "${apt[@]}" source wolfssl >>stable.log 2>&1; then
            mv wolfssl-*/ src
            version=$(sed -n 's/^AC_INIT(\[wolfssl\],\[\([^]]*\)\].*/\1/p' src/configure.ac)
            say "WARNING: the pinned release could not be had; building $version of the stable suite, without ML-KEM"
            return 0
        fi
        grep -h '^[EW]:' stable.log || true
    done
    return 1
}

say "getting wolfSSL $version from apt's mirror"
from_mirror || { say "not there; trying the upstream git tag"; from_git; } ||
    { say "not there; trying the stable suite's source package"; from_stable; } || {
    say "wolfSSL's source cannot be had: no network, or no mirror in apt's sources."
    say "Remedy: set LIGHTWAY_WOLFSSL to a libwolfssl.so of 5.8 or later built with the flags in native/wolfssl.flags."
    exit 1
}

machine=${2:-$(uname -m)}
configure=(--quiet --disable-static --enable-shared) cflags=()
[ "$machine" = "$(uname -m)" ] || configure+=("--host=$machine-linux-gnu")
minor=$(cut -d. -f2 <<<"$version")
while read -r line; do
    case $line in
    '' | '#'*) continue ;;
    "$machine: "*) line=${line#*: } ;;
    "mlkem: "*) [ "$minor" -ge 8 ] || continue; line=${line#*: } ;;
    *': '*) continue ;;
    esac
    case $line in --*) configure+=("$line") ;; *) cflags+=("$line") ;; esac
done <"$here/wolfssl.flags"

say "building wolfSSL $version for $machine"
cd src
{
    ./autogen.sh && ./configure "${configure[@]}" CFLAGS="${cflags[*]}" && make -j"$(nproc)" src/libwolfssl.la
} >"$out/build.log" 2>&1 || {
    tail -n 20 "$out/build.log"
    say "the build failed; all of its output is in $out/build.log"
    exit 1
}
if grep -q "$work" src/.libs/libwolfssl.so; then
    say "the library contains the name of the folder that it was built in, so another build would have other bytes"
    exit 1
fi
cp -L src/.libs/libwolfssl.so "$out/libwolfssl.so"
echo "$version" >"$out/version"
say "built $out/libwolfssl.so"
