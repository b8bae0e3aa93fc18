#!/bin/sh
# A thermometer: says one line a second into nc, and comes back when the bridge has been away.
# It needs nothing but a shell and nc.
#
#     examples/thermometer.sh [channel [host [port]]]
#     examples/thermometer.sh kitchen 127.0.0.1 8081
#
# It measures this machine if there is a sensor, and pretends if there is none.

channel=${1:-kitchen}
host=${2:-127.0.0.1}
port=${3:-8081}
sensor=/sys/class/thermal/thermal_zone0/temp

celsius() {
    if [ -r "$sensor" ]; then
        awk '{ printf "%.1f", $1 / 1000 }' "$sensor"
    else
        awk -v seconds="$(date +%s)" 'BEGIN { printf "%.1f", 21.5 + 1.5 * sin(seconds / 20) }'
    fi
}

say() {
    echo "NICK thermometer"
    echo "QUIET on" # no OK for each measurement; an ERR still comes, and is shown
    while printf 'PUB %s {"celsius": %s}\n' "$channel" "$(celsius)"; do
        sleep 1
    done
}

# nc ends when the bridge closes; the next printf then fails, and so does the while.
while true; do
    say 2>/dev/null | nc "$host" "$port"
    echo "no bridge at $host:$port, next try in 2 seconds" >&2
    sleep 2
done
