#!/usr/bin/env bash
# Debian's Python 3.11 for aarch64 and numpy, unpacked into a folder of their own: 42 MB of downloads, nothing is
# installed. The extension's own tests run on it under qemu-user (test_segment_arm64.py), which says where the folder is.
# The packages come from wherever this machine's apt takes its own.
set -euo pipefail
folder=${1:?"a folder to fill"}
numpy=${2:?"a version of numpy"}
[ -d "$folder" ] && { echo "there already: $folder"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,packages,wheels,ready/root,ready/site} "$(dirname "$folder")"
touch "$work/state/status"
apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State=$work/state"
  -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=$(id -un)")
"${apt[@]}" update
(cd "$work/packages" && "${apt[@]}" download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \
  libgcc-s1 libstdc++6 libexpat1 zlib1g libffi8 libbz2-1.0 liblzma5)
for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/ready/root"; done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest "$work/wheels" \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 "numpy==$numpy"
python3 -m zipfile -e "$work"/wheels/numpy-*.whl "$work/ready/site"
mv "$work/ready" "$folder"
echo "made: $folder"
