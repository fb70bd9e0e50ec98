#!/usr/bin/env bash
# Installs what a fresh Debian machine lacks for `make demo`, `make test` and `make bench`.
# Safe to run again; does nothing when everything is there.
set -euo pipefail

packages=(
  mariadb-server          # server under test; its plugins (ARCHIVE, …) come with it
  mariadb-backup          # the peer: mariabackup and mbstream
  mariadb-plugin-provider-lz4 mariadb-plugin-provider-lzma mariadb-plugin-provider-lzo
  mariadb-plugin-provider-bzip2 mariadb-plugin-provider-snappy # page_compressed algorithms
  pv                      # slow pipes
  hyperfine               # timing
  age                     # the peer for encryption
  zstd                    # the peer for compression
  openssh-server          # the ssh pipeline, on a loopback port
)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: as root, install: ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
export RUNLEVEL=1 # invoke-rc.d starts no service in run level 1: tests start their own servers
apt-get update -q
apt-get install -q -y --no-install-recommends "${missing[@]}"
