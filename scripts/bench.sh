#!/usr/bin/env bash
# Runs the whole-process benchmarks named, or all. An engine to compare with is started when none answers, and stopped by its pid.
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

if ! docker info >/dev/null 2>&1; then
  engine=$(mktemp -d)
  dockerd --data-root "$engine/data" --exec-root "$engine/exec" --pidfile "$engine/pid" --host "unix://$engine/docker.sock" >"$engine/log" 2>&1 &
  started=$!
  export DOCKER_HOST=unix://$engine/docker.sock
  for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && break
    kill -0 "$started" 2>/dev/null || { echo "dockerd ended:" >&2; tail -20 "$engine/log" >&2; exit 1; }
    sleep 0.1
  done
fi
bin/bench "$@"
