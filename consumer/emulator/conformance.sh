#!/bin/sh
# Runs the conformance program against kinesis-mock (npm kinesis-local) and against our emulator, and prints both
# columns. kinesis-mock listens on all addresses, so it runs in a network namespace of its own (needs the right to
# make one; iproute2, util-linux, node and npm). Exits with 1 when either differs in a way that is not known.
set -eu
cd "$(dirname "$0")"
version=0.6.2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

cargo build --release -q --workspace --example conformance
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
program=$target/release/examples/conformance

(cd "$work" && npm install --no-save --no-audit --no-fund --silent "kinesis-local@$version")

# Everything started inside ends with the shell inside, which ends with the run.
cat >"$work/inside.sh" <<'INSIDE'
set -eu
ip link set lo up
cd "$1/node_modules/kinesis-local"
LOG_LEVEL=ERROR node main.js >mock.log 2>&1 &
mock=$!
trap 'kill "$mock" 2>/dev/null || true' EXIT INT TERM
i=0
until node -e 'require("net").connect(4568, "127.0.0.1").on("connect", () => process.exit(0)).on("error", () => process.exit(1))'; do
    i=$((i + 1))
    if [ "$i" -gt 60 ]; then
        echo "kinesis-mock did not start" >&2
        tail -n 20 mock.log >&2
        exit 1
    fi
    sleep 0.5
done
"$2" --endpoint http://127.0.0.1:4568 --name kinesis-mock --small --json "$1/mock.json"
INSIDE

status=0
echo "== kinesis-mock $version"
unshare --map-root-user --user --net sh "$work/inside.sh" "$work" "$program" || status=1
[ -s "$work/mock.json" ] || exit 1
echo
echo "== ours beside kinesis-mock $version"
"$program" --name ours --peer-json "$work/mock.json" || status=1
exit $status
