#!/bin/sh
# A reader that stops reading: nothing piles up. The client stops taking events, the server's
# `write()` answers false, and the server makes no more orders until somebody reads again.
#
# By hand: make run-server ARGS="--tick 0", then bin/brewctl subscribe --limit 0 --stats | (sleep 3; head -n 5)
set -eu
. "$(dirname "$0")/server.sh"

# As many as are read.
serve --tick 0

brewctl subscribe --limit 0 --stats 2>"$work/stats" | (sleep 2; head -n 5)
cat "$work/stats"

server_says 'subscribe ended: client gone sent='
sent=$(sed -n 's/^subscribe ended: client gone sent=//p' "$server_log")
echo "— in two seconds an unhindered server makes some hundred thousand orders"
expect "the server has stopped after those that fit into the buffers on the way" yes \
  "$([ "$sent" -lt 60000 ] && echo yes || echo "no, $sent")"
