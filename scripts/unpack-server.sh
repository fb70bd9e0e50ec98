#!/usr/bin/env bash
# Unpacks servers of newer Debian releases below
# ${XDG_CACHE_HOME:-$HOME/.cache}/xbstream/servers, once: MariaDB 11.8 of trixie as
# mariadb-11.8, MySQL 9.7 of sid as mysql-9.7. The files stay beside the system:
# nothing is installed, and no service is made.
#
# A directory of such a name is complete: it is made under another name and renamed
# at the end. In it, commands/ holds the programs that tests run, with the loader
# and the libraries of their release, so that neither chroot nor container is
# needed.
set -euo pipefail

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
servers=${XDG_CACHE_HOME:-$HOME/.cache}/xbstream/servers

# A release sets: name, of its directory; suite, of Debian; core, the packages that
# debootstrap installs; plugins, those that are unpacked only, for the plugins in
# them; version, what the server must call itself, because sid moves on; and
# commands, each with its options.

release_mariadb() {
  name=mariadb-11.8 suite=trixie version=11.8.
  core=(
    mariadb-server-core mariadb-client-core mariadb-backup
    liblz4-1 liblzma5 liblzo2-2 libbz2-1.0 libsnappy1v5 # the plugins below load them
  )
  # ARCHIVE and key files (mariadb-server, whose scripts make a service),
  # page_compressed algorithms.
  plugins=(
    mariadb-server
    mariadb-plugin-provider-lz4 mariadb-plugin-provider-lzma mariadb-plugin-provider-lzo
    mariadb-plugin-provider-bzip2 mariadb-plugin-provider-snappy
  )
  server=mariadbd
  commands=(sbin/mariadbd '--basedir="$root/usr"' bin/mariadb '' bin/mariadb-backup '' bin/mariabackup '')
  recipe="$suite ${core[*]} ${plugins[*]} commands-1"
}

release_mysql() {
  name=mysql-9.7 suite=sid version=9.7.
  core=(mysql-server-core mysql-client-core libaio1t64)
  plugins=()
  server=mysqld
  commands=(
    sbin/mysqld '--basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql" --character-sets-dir="$root/usr/share/mysql/charsets" --plugin-dir="$root/usr/lib/mysql/plugin" --secure-file-priv='
    bin/mysql ''
  )
  recipe="$suite ${core[*]} commands-1"
}

# recipe is what a complete directory was made from. A change there makes it anew.
complete() { [ "$(cat "$root/commands/recipe" 2>/dev/null)" = "$recipe" ]; }

# add_plugins puts the plugins into the directory $1.
add_plugins() {
  [ "${#plugins[@]}" -gt 0 ] || return 0
  local debs=$1/var/cache/plugins deb
  rm -rf "$debs"
  mkdir -p "$debs"
  (cd "$debs" && timeout 600 apt-get -q -o Dir="$1" -o Dir::State::status="$1/var/lib/dpkg/status" \
    -o APT::Sandbox::User=root -o Acquire::Retries=3 download "${plugins[@]}") || return
  for deb in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$1" --wildcards --no-anchored './usr/lib/mysql/plugin/*.so' || return
  done
  rm -r "$debs" || return
}

# add_commands writes the commands of the directory $1.
add_commands() {
  mkdir -p "$1/commands" || return
  local i
  for ((i = 0; i < ${#commands[@]}; i += 2)); do
    add_command "$1" "${commands[i]}" "${commands[i + 1]}" || return
  done
}

# add_command writes the command of the directory $1 that runs usr/$2 with the
# options $3. An option about option files must stay the first one.
add_command() {
  local command=$1/commands/${2##*/} loader libraries
  loader=$(cd "$1" && ls usr/lib*/ld-linux-*.so.* | head -n 1) || return
  libraries=$(cd "$1" && ls -d usr/lib/*-linux-gnu | head -n 1) || return
  cat >"$command" <<END || return
#!/bin/sh
# Made by scripts/unpack-server.sh.
root=\$(cd "\${0%/*}/.." && pwd) || exit
first=
case \${1-} in --no-defaults | --defaults-* | --print-defaults) first=\$1; shift ;; esac
exec "\$root/$loader" --library-path "\$root/$libraries:\$root/usr/lib/mysql/private" --argv0 "\$0" "\$root/usr/$2" \${first:+"\$first"} ${3-} "\$@"
END
  chmod 755 "$command"
}

# check_version says whether the server of the directory $1 is the release.
check_version() {
  local said
  said=$("$1/commands/$server" --no-defaults --version) || return
  case $said in *" $version"*) return ;; esac
  echo "$suite has another version than $version: $said"
  return 1
}

# make_root makes the whole directory $1.
make_root() {
  rm -rf "$1"
  timeout 1800 debootstrap --variant=minbase --keyring="$keyring" \
    --include="$(IFS=,; echo "${core[*]}")" "$suite" "$1" || return
  add_plugins "$1" && add_commands "$1" && check_version "$1" || return
  rm -f "$1"/var/cache/apt/archives/*.deb
  printf '%s\n' "$recipe" >"$1/commands/recipe"
}

# unpack makes the directory of the release that is set, if it is not there.
unpack() {
  root=$servers/$name
  complete && return
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: $root is missing, and only root can make it (debootstrap)" >&2
    return 1
  fi
  mkdir -p "$servers"
  exec 9>"$servers/.lock"
  flock -w 3600 9 # another setup may be at it
  complete && return
  local log=$servers/.log pause
  for pause in 5 15 45 0; do
    if make_root "$root.new" >"$log" 2>&1; then
      rm -rf "$root.old"
      [ ! -e "$root" ] || mv "$root" "$root.old"
      mv "$root.new" "$root"
      rm -rf "$root.old" "$log"
      return
    fi
    tail -n 5 "$log" >&2
    [ "$pause" -eq 0 ] || echo "setup: trying again in $pause seconds" >&2
    sleep "$pause"
  done
  rm -rf "$root.new"
  echo "setup: cannot unpack $name; see $log" >&2
  return 1
}

for release in mariadb mysql; do
  "release_$release"
  unpack
done
