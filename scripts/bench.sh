#!/usr/bin/env bash
# Runs the whole-process benchmarks named, or all. An engine to compare with is started when none answers, and stopped by its pid.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin

source scripts/engine.sh
trap stop_engine EXIT
start_engine
bin/bench "$@"
