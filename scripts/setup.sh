#!/usr/bin/env bash
# Makes sure that what the given goal needs is installed: build, run or test. As root on Debian it installs what is missing
# and says so; elsewhere it says what to install and stops.
set -euo pipefail
goal=${1:-build}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
missing=()
need() { missing+=("$1"); }

have go || { echo "Go 1.26 or newer is needed: https://go.dev/dl" >&2; exit 1; }
have gcc || need gcc
[ -e /usr/include/seccomp.h ] || need libseccomp-dev
# The static link needs the archive too; it comes with the same package.
if [ "$goal" = test ]; then
  have dockerd || need docker.io
  have aws || need awscli
  have curl || need curl
  have nft || need nftables
  have mkfs.ext4 || need e2fsprogs
  have ip || need iproute2
  [ -x /bin/busybox ] || need busybox-static
  have etcd || need etcd-server
  have skopeo || need skopeo
  have podman || need podman
  # Another's S3 for the tests of --blob-store, which are left out without it. Debian has none.
  if ! have versitygw && [ ! -x "$(go env GOPATH)/bin/versitygw" ]; then
    echo "Installing with go: versitygw"
    go install github.com/versity/versitygw/cmd/versitygw@v1.8.0 || echo "versitygw cannot be built here; its tests are skipped" >&2
  fi
fi
if [ "$goal" = bench ]; then
  have nginx || need nginx-light
  have haproxy || need haproxy
  have dockerd || need docker.io
  have etcd || need etcd-server
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && have apt-get; then
  echo "Installing with apt: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Services that a package brings (dockerd, nginx) are not to start by themselves.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi
cat >&2 <<TXT
These are needed and not installed (Debian's package names): ${missing[*]}
On Debian or Ubuntu:  sudo apt-get install ${missing[*]}
Then run make again.
TXT
exit 1
