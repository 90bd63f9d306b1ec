#!/bin/sh
# Installs the servers and clients that the benchmarks compare with, from the distribution's packages.
#
# Packages of servers start their service on installation, and on every boot. A benchmark wants neither: on Debian and Ubuntu a
# policy-rc.d forbids the start while we install (and only if the machine has none of its own), and services that were not
# there before are disabled. What was installed already is left as it is.
set -eu

SERVICES="redis-server nginx memcached"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

install_with_apt() {
    new=""
    for service in $SERVICES; do
        command -v "$service" >/dev/null || [ -x "/usr/sbin/$service" ] || new="$new $service"
    done
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-upgrade --no-install-recommends \
        redis-server redis-tools memcached libmemcached-tools nginx-light wrk curl util-linux
    for service in $new; do
        if command -v systemctl >/dev/null; then
            as_root systemctl disable "$service" >/dev/null 2>&1 || echo "peers.sh: could not disable $service" >&2
        fi
    done
}

if command -v apt-get >/dev/null; then
    install_with_apt
elif command -v dnf >/dev/null; then
    as_root dnf install -y redis memcached nginx wrk curl util-linux
elif command -v pacman >/dev/null; then
    as_root pacman -S --needed --noconfirm redis memcached nginx wrk curl util-linux
else
    echo "peers.sh: install redis-server, redis-benchmark, memcached, memaslap, nginx, wrk, curl and taskset with your package manager" >&2
    exit 1
fi
for program in redis-server redis-benchmark memcached nginx wrk curl taskset; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || { echo "peers.sh: $program is still missing" >&2; exit 1; }
done
command -v memcaslap >/dev/null || command -v memaslap >/dev/null ||
    echo "peers.sh: for compare.py memcached install memaslap, which belongs to libmemcached" >&2
