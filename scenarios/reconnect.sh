#!/bin/sh
# --reconnect: the server is restarted, and the subscription goes on with what is left of its limit.
# It is honest about the gap: a stream has no replay, and what happened meanwhile is lost.
#
# By hand: make run-subscribe ARGS="-limit=20 --reconnect", and restart the server meanwhile.
set -eu
. "$(dirname "$0")/server.sh"

serve --tick 50ms

brewctl subscribe --limit 20 --reconnect >"$work/events" 2>"$work/talk" &
client_pid=$!
eventually "three events" grep -q '^\[3\]' "$work/events"
kill_server
eventually "the client to notice" grep -q 'attempt 1 to reconnect' "$work/talk"
echo "— a new server, on the same port"
serve_again --tick 50ms
status=0
wait "$client_pid" || status=$?

cat "$work/talk"
expect "the exit code" 0 "$status"
expect "events in all, over both connections" 20 "$(grep -c 'order_id=' "$work/events")"
expect "that there was a gap is said" 1 \
  "$(grep -c 'events of that time are lost, a stream has no replay' "$work/talk")"
