#!/usr/bin/env bash
# Looks for known vulnerabilities in what the binaries call. The database is on the
# network: where it cannot be reached, that is said and is no failure; anything else
# that keeps the check from running is one.
set -euo pipefail

out=$(mktemp)
trap 'rm -f "$out"' EXIT
if go tool govulncheck ./cmd/... >"$out" 2>&1; then
  cat "$out"
  exit
fi
cat "$out"
if grep -qE '^govulncheck: fetching vulnerabilities: .*(no such host|connection refused|i/o timeout|network is unreachable)' "$out"; then
  echo 'vuln: NOT CHECKED, the vulnerability database cannot be reached from here'
  exit
fi
exit 1
