#!/usr/bin/env bash
# Builds all packages of this commit in two fresh clones, in folders with names of different lengths, and compares every byte:
# tests/deploy/reproduce.sh [FOLDER]. Takes as long as two whole builds for both processors. FOLDER is kept.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=${1:-$(mktemp -d)}
commit=$(git -C "$here" rev-parse HEAD)
for name in first a-second-one/with/a/longer/name; do
    rm -rf "${work:?}/$name"
    mkdir -p "$work/$name"
    git clone --quiet "$here" "$work/$name"
    git -C "$work/$name" checkout --quiet --detach "$commit"
    (cd "$work/$name" && env -u LIGHTWAY_WOLFSSL dotnet fsi build.fsx -t Package)
done
cd "$work/first/artifacts/dist"
if diff SHA256SUMS "$work/a-second-one/with/a/longer/name/artifacts/dist/SHA256SUMS"; then
    cat SHA256SUMS
    echo "$(wc -l <SHA256SUMS) files are the same in both folders"
else
    echo "the builds differ"
    exit 1
fi
