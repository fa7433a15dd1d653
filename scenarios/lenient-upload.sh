#!/bin/sh
# Bad records are counted, not refused: an error would end the stream and cost the records behind.
#
# By hand: make run-upload ARGS="-bad=5"
set -eu
. "$(dirname "$0")/server.sh"

serve

status=0
brewctl upload -bad=5 -o ndjson >"$work/summary" || status=$?
cat "$work/summary"
expect "the exit code: rejected records are no failure" 0 "$status"
expect "the summary" \
  '{"received":20,"accepted":15,"rejected":5,"totalCents":3300}' "$(cat "$work/summary")"

status=0
brewctl upload -bad=5 --fail-on-rejected -q >/dev/null || status=$?
expect "the exit code of a script that asked to know" 3 "$status"
