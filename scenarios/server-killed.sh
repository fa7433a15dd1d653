#!/bin/sh
# A server that dies in the middle of a stream. The client learns of it at once, says that nobody
# closed the stream properly, and fails, so that a script does not take half of the data for all.
#
# By hand: make run-subscribe ARGS="-limit=0", and kill -9 the server.
set -eu
. "$(dirname "$0")/server.sh"

serve --tick 50ms

brewctl subscribe --limit 0 >"$work/events" 2>"$work/verdict" &
client_pid=$!
eventually "three events" grep -q '^\[3\]' "$work/events"
echo "— SIGKILL: the server cannot say goodbye"
kill_server
status=0
wait "$client_pid" || status=$?

cat "$work/verdict"
expect "the exit code, 64 + UNAVAILABLE" 78 "$status"
expect "who closed the stream: nobody" 1 "$(grep -c '^stream lost, got' "$work/verdict")"
