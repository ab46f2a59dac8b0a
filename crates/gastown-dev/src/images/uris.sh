#!/bin/sh
# Writes the addresses and hashes of all packages of the tree, whose folder is the only argument, to /uris in it.
set -eu
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
export APT_CONFIG
cd /
# The format is dpkg's, not the shell's.
# shellcheck disable=SC2016
dpkg-query --root="$1" -W -f '${binary:Package}=${Version}\n' | xargs apt-get -qq download --print-uris > "$1/uris"
