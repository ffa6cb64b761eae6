#!/usr/bin/env bash
# Runs all tests, with the race detector, real containers and real clients. An engine for the docker driver's tests is
# started when none answers, and stopped by its pid. Arguments go to go test; without any: ./...
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin

started=
cleanup() {
  if [ -n "$started" ]; then
    kill "$started" 2>/dev/null || true
    wait "$started" 2>/dev/null || true
    rm -rf "$engine"
  fi
}
trap cleanup EXIT

if [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null && ! docker info >/dev/null 2>&1; then
  engine=$(mktemp -d)
  dockerd --data-root "$engine/data" --exec-root "$engine/exec" --pidfile "$engine/pid" --host "unix://$engine/docker.sock" \
    >"$engine/log" 2>&1 &
  started=$!
  export DOCKER_HOST=unix://$engine/docker.sock
  for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$started" 2>/dev/null || { echo "dockerd ended:" >&2; tail -20 "$engine/log" >&2; exit 1; }
    sleep 0.1
  done
  docker info >/dev/null 2>&1 || { echo "dockerd does not answer:" >&2; tail -20 "$engine/log" >&2; exit 1; }
fi

race=
[ "$(go env CGO_ENABLED)" = 1 ] && race=-race
go test $race -tags netgo,osusergo,seccomp -timeout 30m "${@:-./...}"
