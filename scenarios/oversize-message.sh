#!/bin/sh
# A message has a largest size: 4 MiB, gRPC's own default. One that is larger ends the call with
# RESOURCE_EXHAUSTED, and the server goes on serving the others.
#
# By hand: head -c 4194304 /dev/zero | tr '\0' x | bin/brewctl chat --input -
set -eu
. "$(dirname "$0")/server.sh"

serve --echo-delay 0

status=0
head -c 4194304 /dev/zero | tr '\0' x |
  brewctl chat --input - >"$work/chat" 2>"$work/verdict" || status=$?
cut -c 1-200 "$work/verdict"
expect "the exit code, 64 + RESOURCE_EXHAUSTED" 72 "$status"
expect "echoes" 0 "$(grep -c '^<' "$work/chat" || true)"

echo "— a chat's text has a limit of its own, 64 KiB, which the handler names"
status=0
head -c 100000 /dev/zero | tr '\0' x |
  brewctl chat --input - >"$work/chat" 2>"$work/verdict" || status=$?
cut -c 1-200 "$work/verdict"
expect "the exit code, 64 + INVALID_ARGUMENT" 67 "$status"

echo "— and the server is as well as before"
status=0
brewctl chat --count 2 --interval 0 -q || status=$?
expect "the exit code" 0 "$status"
