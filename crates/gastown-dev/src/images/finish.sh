#!/bin/sh
# Finishes a root file system, whose folder is the only argument, before it becomes a layer of an image.
set -eu
cd "$1"
echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/bin/sh' >> etc/passwd
echo 'nonroot:x:65532:' >> etc/group
mkdir -p home/nonroot
# Group 0 may write, for platforms that choose the user themselves.
chown 65532:0 home/nonroot
chmod 0770 home/nonroot
# Nobody becomes root in a container: no program with the bits to do so.
find . -xdev -perm /6000 -type f -exec chmod a-s {} +
# What only an installer needs, and what differs from one build to the next. The list of packages stays, for scanners.
rm -rf etc/apt/sources.list etc/apt/sources.list.d/* etc/apt/apt.conf.d/99mmdebstrap etc/hostname etc/resolv.conf etc/machine-id var/cache/* var/lib/apt var/lib/dpkg/info var/lib/dpkg/*-old var/log/*
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow-
mkdir -p var/lib/dpkg/info
# Byte code that does not compare times: those of the image are all zero, and its root is read-only.
if test -x usr/bin/python3; then
  find usr/lib/python3* -name __pycache__ -type d -prune -exec rm -rf {} +
  PYTHONHASHSEED=0 chroot . python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.[0-9]*
fi
