#!/bin/sh
# A cloud that is far away: each answer takes a second. The store does not wait for one before it
# sends the next, so a hundred events take about a second as well, and not a hundred.
#
# By hand: bin/brewctl serve --memory --fault-latency 1s, then
#          time bin/brewctl store-sync channel --until-drained
set -eu
. "$(dirname "$0")/server.sh"

serve --memory --fault-latency 1s

record_sales 100
started=$(date +%s)
brewctl store-sync channel --until-drained >"$work/answers"
seconds=$(($(date +%s) - started))
echo "— $seconds s for $(grep -c '^ACK' "$work/answers") answers of 1 s each"
expect "that is the time of a few" yes "$([ "$seconds" -le 5 ] && echo yes || echo no)"
expect_each_once 100
expect_settled
