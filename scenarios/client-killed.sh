#!/bin/sh
# A client that dies in the middle of an upload. The server notices, and does not take what came so
# far for the whole batch: only a half-close says "that was all".
#
# By hand: make run-upload ARGS="--count 1000", and kill -9 the client.
set -eu
. "$(dirname "$0")/server.sh"

serve

brewctl upload --count 1000 --pause 20ms >"$work/sent" 2>&1 &
client_pid=$!
eventually "ten records" grep -q '^sent #10 ' "$work/sent"
echo "— SIGKILL: the client cannot say goodbye"
kill -KILL "$client_pid"
wait "$client_pid" 2>/dev/null || true

server_says 'upload ended: client gone received='
expect "summaries of half a batch" 0 "$(grep -c '^summary' "$work/sent" || true)"
