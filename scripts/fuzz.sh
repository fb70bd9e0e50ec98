#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (default 3s, and 6s for the readers
# of archives, which take bytes from anybody). The targets are looked up, not
# listed, so that a new one is never forgotten; none at all is a failure.
set -euo pipefail

# Packages without any may start a server for nothing when they are asked.
mapfile -t packages < <(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r dirname | sort -u)
list=$(go test -list '^Fuzz' "${packages[@]}")
targets=$(awk '/^Fuzz/ { names[++n] = $1 }
  $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' <<<"$list")
if [ -z "$targets" ]; then
  echo "fuzz: no fuzz target found in:" >&2
  echo "$list" >&2
  exit 1
fi

# fuzz runs one target and prints the last line of one that passes, and all of one
# that fails. Go up to 1.26 may report the end of the time itself as a failure,
# "context deadline exceeded", when a worker is in the middle of an input
# (go.dev/issue/75804). That alone is none: an input that fails is printed.
fuzz() {
  local name=$1 time=$2 package=$3 out
  out=$(mktemp)
  # Without a bound, minimizing one large input takes all of the time.
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "$package" >"$out" 2>&1; then
    grep '^fuzz: elapsed' "$out" | tail -n 1
    rm "$out"
    return
  fi
  # What is left besides progress and the frame of a failed test.
  if [ "$(grep -vE '^(fuzz: elapsed: |waiting for fuzzing process|--- FAIL: Fuzz|FAIL|exit status 1$)' "$out")" = '    context deadline exceeded' ]; then
    echo "fuzz: $name: the time was over (go.dev/issue/75804), no input failed"
    rm "$out"
    return
  fi
  cat "$out"
  rm "$out"
  return 1
}

while read -r package name; do
  case $package in
    */format | */classic) time=${FUZZTIME:-6s} ;;
    *) time=${FUZZTIME:-3s} ;;
  esac
  echo "fuzz: $name of $package for $time"
  fuzz "$name" "$time" "$package"
done <<<"$targets"
