#!/bin/sh
# "The store was offline for 20 minutes. The moment it reconnected, 3 queued price updates landed in
# under a second." Here it is offline for a moment only: how long makes no difference, since what
# waits, on either side, waits on a disk.
#
# By hand: make run-server; bin/brewctl head-office command --store store-01 --type PriceUpdate
#          --payload '{"sku":"ITEM-42","newPrice":299}', and bin/brewctl store-sync watch
set -eu
. "$(dirname "$0")/server.sh"

echo "— the store is offline, and sells"
record_sales 12

serve --data-dir "$work/cloud"
echo "— meanwhile head office changes three prices"
for price in 299 309 319; do
  brewctl head-office command --store store-01 --type PriceUpdate --id "price-$price" \
    --payload "{\"sku\":\"ITEM-42\",\"newPrice\":$price}"
done

echo "— the store is back"
status=0
brewctl store-sync watch --expect 3 --within 1s -o ndjson >"$work/commands" || status=$?
cat "$work/commands"
expect "the exit code: all three within a second" 0 "$status"
expect "the prices, in the order of head office" "price-299 price-309 price-319 " \
  "$(sed -n 's/.*"commandId":"\([^"]*\)".*/\1/p' "$work/commands" | tr '\n' ' ')"

brewctl store-sync flush | tee "$work/flush"
expect "the summary" "Upload complete — 12 accepted, 0 rejected" "$(tail -n 1 "$work/flush")"
brewctl head-office events | sed 's/.* \(sale-[0-9]*\) .*/\1/' >"$work/order"
expect "the first sale and the last, as they happened" "sale-1 sale-12" \
  "$(sed -n '1p;$p' "$work/order" | tr '\n' ' ' | sed 's/ $//')"
expect_each_once 12

echo "— each command comes once: a second look finds nothing"
status=0
brewctl store-sync watch --expect 1 --within 500ms >"$work/again" || status=$?
expect "the exit code: --expect was not met" 4 "$status"
expect "commands" 0 "$(grep -c . "$work/again" || true)"
expect_settled
