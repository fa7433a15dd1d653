#!/bin/sh
# Backpressure, from the other side: a server that takes its time over each record. Its HTTP/2 window
# fills, our `write()` answers false, and the upload waits for the "drain".
#
# By hand: make run-server ARGS="--upload-delay 1ms", then
#          make run-upload ARGS="--count 8000 --pause 0 --timeline -o ndjson"
set -eu
. "$(dirname "$0")/server.sh"

serve --upload-delay 1ms

brewctl upload --count 8000 --bad 0 --pause 0 --timeline -o ndjson >"$work/summary" 2>"$work/picture"
cat "$work/picture" "$work/summary"

expect "records that arrived, however slowly" '"received":8000' \
  "$(grep -o '"received":8000' "$work/summary")"
expect "the lane that shows when the connection took no more" 1 \
  "$(grep -c '^blocked' "$work/picture")"
