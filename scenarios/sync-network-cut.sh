#!/bin/sh
# A cut that nobody is told of: no FIN, no RST, only silence, as when a cable is pulled. The store
# asks "are you there?" every five seconds, and gives the connection up when nobody answers.
#
# By hand: bin/brewctl serve --memory, bin/brewctl store-sync channel, kill -STOP the server, record
# a sale, and kill -CONT the server after ten seconds.
set -eu
. "$(dirname "$0")/server.sh"

serve --memory

record_sales 10
brewctl store-sync channel >"$work/answers" 2>"$work/talk" &
client_pid=$!
eventually "ten answers" grep -q '^ACK: sale-10$' "$work/answers"
echo "— SIGSTOP: the server is there, and says nothing"
kill -STOP "$server_pid"
record_sales 20
cut=$(date +%s)
eventually "the store to notice" grep -q '^offline: ' "$work/talk"
echo "— noticed after $(($(date +%s) - cut)) s"
kill -CONT "$server_pid"
eventually "the other ten" grep -q '^ACK: sale-20' "$work/answers"
kill -TERM "$client_pid"
status=0
wait "$client_pid" || status=$?

cat "$work/talk"
expect "the exit code, 128 + SIGTERM" 143 "$status"
expect_each_once 20
expect_settled
