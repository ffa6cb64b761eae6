#!/usr/bin/env bash
# Runs all tests, with the race detector, real containers and real clients. An engine for the docker driver's tests is
# started when none answers, and stopped by its pid. Arguments go to go test; without any: ./...
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin

source scripts/engine.sh
# That something of the engine cannot be taken away, which the commands say that tried, is no fault of the tests.
trap 'status=$?; stop_engine || true; exit $status' EXIT
if [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null; then
  start_engine
fi

race=
[ "$(go env CGO_ENABLED)" = 1 ] && race=-race
go test $race -tags "$(cat scripts/tags)" -timeout 30m "${@:-./...}"
