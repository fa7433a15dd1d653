# What every scenario needs: `serve` starts a server of its own on a free port, which the clients
# find by BREWCTL_ADDR; `expect` checks what happened. To be sourced, by a shell with `set -eu`.

# A scenario begins with what it shows.
sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
echo

cd "$(dirname "$0")/.."
PATH=$PWD/bin:$PATH
work=$(mktemp -d)
server_log=$work/server.log
server_pid=

# serve [FLAGS]: starts `brewctl serve` and waits until it listens.
serve() {
  serve_at localhost:0 "$@"
  BREWCTL_ADDR=localhost:$(sed -n 's/^streaming-server started.* port=//p' "$server_log")
  export BREWCTL_ADDR
}

# serve_again [FLAGS]: the same, where the last one listened.
serve_again() {
  serve_at "$BREWCTL_ADDR" "$@"
}

serve_at() {
  : >"$server_log"
  brewctl serve --addr "$@" 2>"$server_log" &
  server_pid=$!
  eventually "the server to start" grep -q '^streaming-server started' "$server_log"
}

# kill_server: as a crash would, without a word to anybody.
kill_server() {
  kill -KILL "$server_pid"
  wait "$server_pid" 2>/dev/null || true
  server_pid=
}

# eventually WHAT COMMAND...: waits up to 10 seconds until the command succeeds.
eventually() {
  what=$1
  shift
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then
      echo "✗ waited in vain for $what; the server's log:"
      cat "$server_log"
      exit 1
    fi
    sleep 0.1
  done
}

# server_says LINE: waits for a line that begins so in the server's log.
server_says() {
  eventually "the server to log: $1" grep -q "^$1" "$server_log"
  echo "✓ the server's log: $(grep "^$1" "$server_log" | tail -n 1)"
}

# expect WHAT EXPECTED ACTUAL
expect() {
  if [ "$2" = "$3" ]; then
    echo "✓ $1: $3"
  else
    echo "✗ $1: expected $2, got $3"
    exit 1
  fi
}

finish() {
  status=$?
  [ -z "$server_pid" ] || { kill "$server_pid" && wait "$server_pid"; } || status=1
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
