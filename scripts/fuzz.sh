#!/usr/bin/env bash
# Runs every fuzz target for FUZZTIME (default 10s, and a minute for the readers
# of archives, which take bytes from anybody). The targets are looked up, not
# listed, so that a new one is never forgotten; none at all is a failure.
set -euo pipefail

list=$(go test -list '^Fuzz' ./...)
targets=$(awk '/^Fuzz/ { names[++n] = $1 }
  $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' <<<"$list")
if [ -z "$targets" ]; then
  echo "fuzz: no fuzz target found in:" >&2
  echo "$list" >&2
  exit 1
fi
while read -r package name; do
  case $package in
    */format | */classic) time=${FUZZTIME:-60s} ;;
    *) time=${FUZZTIME:-10s} ;;
  esac
  echo "fuzz: $name of $package for $time"
  # Without a bound, minimizing one large input takes all of the time.
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "$package"
done <<<"$targets"
