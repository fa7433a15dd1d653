#!/bin/sh
# An endless subscription, ended by its client: the server notices at once and stops its work.
#
# By hand: make run-subscribe ARGS="-limit=0", then Ctrl+C, and look at the server's terminal.
set -eu
. "$(dirname "$0")/server.sh"

serve --tick 100ms

brewctl subscribe -limit=0 >"$work/events" 2>"$work/verdict" &
client_pid=$!
eventually "three events" grep -q '^\[3\]' "$work/events"
echo "— SIGTERM, which a script can send where a person presses Ctrl+C"
kill -TERM "$client_pid"
status=0
wait "$client_pid" || status=$?

cat "$work/verdict"
expect "the exit code, 128 + SIGTERM" 143 "$status"
expect "who closed the stream" 1 "$(grep -c '^stream cancelled by client, got' "$work/verdict")"
server_says 'subscribe ended: client gone'
