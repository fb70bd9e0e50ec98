#!/usr/bin/env bash
# Unpacks MariaDB 11.8 of Debian trixie into
# ${XDG_CACHE_HOME:-$HOME/.cache}/xbstream/servers/mariadb-11.8, once. The files
# stay beside the system: nothing is installed, and no service is made.
#
# A directory of that name is complete: it is made under another name and renamed
# at the end. In it, commands/ holds mariadbd, mariadb, mariadb-backup and
# mariabackup, which run the programs of trixie with the loader and libraries of
# trixie, so that neither chroot nor container is needed.
set -euo pipefail

name=mariadb-11.8
suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
core=(
  mariadb-server-core mariadb-client-core mariadb-backup
  liblz4-1 liblzma5 liblzo2-2 libbz2-1.0 libsnappy1v5 # the plugins below load them
)
# Packages that are unpacked only, for the plugins in them: ARCHIVE and key files
# (mariadb-server, whose scripts make a service), page_compressed algorithms.
plugins=(
  mariadb-server
  mariadb-plugin-provider-lz4 mariadb-plugin-provider-lzma mariadb-plugin-provider-lzo
  mariadb-plugin-provider-bzip2 mariadb-plugin-provider-snappy
)
# What a complete directory was made from. A change here makes it anew.
recipe="$suite ${core[*]} ${plugins[*]} commands-1"

servers=${XDG_CACHE_HOME:-$HOME/.cache}/xbstream/servers
root=$servers/$name

complete() { [ "$(cat "$root/commands/recipe" 2>/dev/null)" = "$recipe" ]; }

# add_plugins puts the plugins into the directory $1.
add_plugins() {
  local debs=$1/var/cache/plugins deb
  rm -rf "$debs"
  mkdir -p "$debs"
  (cd "$debs" && timeout 600 apt-get -q -o Dir="$1" -o Dir::State::status="$1/var/lib/dpkg/status" \
    -o APT::Sandbox::User=root -o Acquire::Retries=3 download "${plugins[@]}") || return
  for deb in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$1" --wildcards --no-anchored './usr/lib/mysql/plugin/*.so' || return
  done
  rm -r "$debs" "$1"/var/cache/apt/archives/*.deb
}

# add_commands writes the commands of the directory $1.
add_commands() {
  mkdir -p "$1/commands" || return
  add_command "$1" sbin/mariadbd '--basedir="$root/usr"' &&
    add_command "$1" bin/mariadb &&
    add_command "$1" bin/mariadb-backup &&
    add_command "$1" bin/mariabackup &&
    printf '%s\n' "$recipe" >"$1/commands/recipe"
}

# add_command writes the command of the directory $1 that runs usr/$2 with the
# option $3. An option about option files must stay the first one.
add_command() {
  local command=$1/commands/${2##*/} loader libraries
  loader=$(cd "$1" && ls usr/lib*/ld-linux-*.so.* | head -n 1) || return
  libraries=$(cd "$1" && ls -d usr/lib/*-linux-gnu | head -n 1) || return
  cat >"$command" <<EOF || return
#!/bin/sh
# Made by scripts/unpack-server.sh.
root=\$(cd "\${0%/*}/.." && pwd) || exit
first=
case \${1-} in --no-defaults | --defaults-* | --print-defaults) first=\$1; shift ;; esac
exec "\$root/$loader" --library-path "\$root/$libraries" --argv0 "\$0" "\$root/usr/$2" \${first:+"\$first"} ${3-} "\$@"
EOF
  chmod 755 "$command"
}

# make_root makes the whole directory $1.
make_root() {
  rm -rf "$1"
  timeout 1800 debootstrap --variant=minbase --keyring="$keyring" \
    --include="$(IFS=,; echo "${core[*]}")" "$suite" "$1" || return
  add_plugins "$1" && add_commands "$1"
}

complete && exit
if [ "$(id -u)" -ne 0 ]; then
  echo "setup: $root is missing, and only root can make it (debootstrap)" >&2
  exit 1
fi
mkdir -p "$servers"
exec 9>"$servers/.lock"
flock -w 3600 9 # another setup may be at it
complete && exit
log=$servers/.log
for pause in 5 15 45 0; do
  if make_root "$root.new" >"$log" 2>&1; then
    rm -rf "$root.old"
    [ ! -e "$root" ] || mv "$root" "$root.old"
    mv "$root.new" "$root"
    rm -rf "$root.old" "$log"
    exit
  fi
  tail -n 5 "$log" >&2
  [ "$pause" -eq 0 ] || echo "setup: trying again in $pause seconds" >&2
  sleep "$pause"
done
rm -rf "$root.new"
echo "setup: cannot unpack $name; see $log" >&2
exit 1
