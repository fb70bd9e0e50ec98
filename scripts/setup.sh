#!/usr/bin/env bash
# Installs what a fresh Debian machine lacks for `make demo`, `make test` and
# `make bench`, and unpacks servers of newer Debian releases beside the system.
# Safe to run again; does nothing when everything is there. Starts no service:
# the tests run servers of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  mariadb-server          # server under test; its plugins (ARCHIVE, …) come with it
  mariadb-backup          # the peer: mariabackup and mbstream
  mariadb-plugin-provider-lz4 mariadb-plugin-provider-lzma mariadb-plugin-provider-lzo
  mariadb-plugin-provider-bzip2 mariadb-plugin-provider-snappy # page_compressed algorithms
  gcc libc6-dev           # the race detector links with them
  pv                      # slow pipes
  hyperfine               # timing
  age                     # the peer for encryption
  zstd                    # the peer for compression
  openssh-server          # the ssh pipeline, on a loopback port
  python3-minimal         # the independent reader of archives
  strace                  # counts what is read, makes system calls fail
  debootstrap debian-archive-keyring # scripts/unpack-server.sh
)

if ! command -v go >/dev/null; then
  echo "setup: Go is missing; see https://go.dev/doc/install (go.mod says which version)" >&2
  exit 1
fi

# install_packages installs those that are missing.
install_packages() {
  local p pause missing=()
  for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}\n' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: as root, install: ${missing[*]}" >&2
    return 1
  fi

  # The packages' scripts ask this file before they start a service; 101 says no.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  local apt=(apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
  # A mirror may be away for a moment, or another program may hold apt's locks. Lists
  # that cannot be fetched are no failure yet: those that are there may do.
  for pause in 5 15 45 0; do
    "${apt[@]}" update || true
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" && return
    [ "$pause" -eq 0 ] || echo "setup: trying again in $pause seconds" >&2
    sleep "$pause"
  done
  echo "setup: cannot install: ${missing[*]}" >&2
  return 1
}

install_packages
scripts/unpack-server.sh
