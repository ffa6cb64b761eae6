# Sourced: start_engine starts a Docker engine unless one answers, stop_engine takes away all that it brought. An engine leaves its
# bridge, its firewall chains and a mount behind when it ends; the bridge's alias says that it is ours and how the host was before.

engine= engine_pid=

start_engine() {
  docker info >/dev/null 2>&1 && return
  engine=$(mktemp -d)
  local ours=
  if ! ip link show docker0 >/dev/null 2>&1; then
    ours="neargate $(iptables -S FORWARD | awk '/^-P/ {print $3}') $(cat /proc/sys/net/ipv4/ip_forward)"
  fi
  dockerd --data-root "$engine/data" --exec-root "$engine/exec" --pidfile "$engine/pid" --host "unix://$engine/docker.sock" \
    >"$engine/log" 2>&1 &
  engine_pid=$!
  export DOCKER_HOST=unix://$engine/docker.sock
  # Its end is noticed at once, so that one on a slow disk can be given time.
  for _ in $(seq 3000); do
    if docker info >/dev/null 2>&1; then
      [ -z "$ours" ] || ip link set docker0 alias "$ours"
      return
    fi
    kill -0 "$engine_pid" 2>/dev/null || { echo "dockerd ended:" >&2; tail -20 "$engine/log" >&2; return 1; }
    sleep 0.1
  done
  echo "dockerd does not answer:" >&2
  tail -20 "$engine/log" >&2
  return 1
}

stop_engine() {
  [ -n "$engine_pid" ] || return 0
  kill "$engine_pid" 2>/dev/null || true
  wait "$engine_pid" 2>/dev/null || true
  if mountpoint -q "$engine/exec/netns/default"; then umount "$engine/exec/netns/default"; fi
  rm -rf "$engine"
  # Another engine, of tests that run at the same time, may still use the bridge: then its end clears up.
  if pgrep -x dockerd >/dev/null; then return 0; fi
  local alias
  alias=$(cat /sys/class/net/docker0/ifalias 2>/dev/null) || return 0
  read -r owner policy forward <<<"$alias"
  [ "$owner" = neargate ] || return 0
  ip link delete docker0
  clear_chains filter
  clear_chains nat
  iptables -P FORWARD "$policy"
  if ! ip -brief link | grep -q '^ng-'; then echo "$forward" >/proc/sys/net/ipv4/ip_forward; fi
}

# clear_chains TABLE: what mentions the engine's chains or its bridge goes, then the chains. Nothing of others' rules is touched.
clear_chains() {
  local rule
  iptables -t "$1" -S | grep -E '^-A' | grep -E -- '-j DOCKER|docker0|^-A DOCKER' | while read -r rule; do
    # shellcheck disable=SC2086 # the rule is words
    iptables -t "$1" -D ${rule#-A }
  done
  for chain in $(iptables -t "$1" -S | awk '/^-N DOCKER/ {print $2}'); do
    iptables -t "$1" -X "$chain"
  done
}
