#!/bin/sh
# The cloud dies in the middle of a drain and comes back with the same disk. What it had acknowledged
# is there, since it answers only for what is on the disk; the rest comes again by itself.
#
# By hand: bin/brewctl serve --data-dir /tmp/cloud, bin/brewctl store-sync channel, and kill -9 the
# server.
set -eu
. "$(dirname "$0")/server.sh"

# The refusals hold the store up, so that the server dies with some events taken and some not.
serve --data-dir "$work/cloud" --fault-nack 0.7

record_sales 200
brewctl store-sync channel --until-drained --deadline 60s >"$work/answers" 2>"$work/talk" &
client_pid=$!
eventually "an answer" grep -q '^ACK' "$work/answers"
echo "— SIGKILL: the cloud cannot say goodbye"
kill_server
eventually "the store to notice" grep -q '^offline: ' "$work/talk"
echo "— acknowledged so far: $(grep -c '^ACK' "$work/answers")"
serve_again --data-dir "$work/cloud"
status=0
wait "$client_pid" || status=$?

cat "$work/talk"
expect "the exit code" 0 "$status"
expect "acknowledged in all" 200 "$(grep -c '^ACK: sale-' "$work/answers")"
expect_each_once 200
expect_settled
