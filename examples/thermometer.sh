#!/bin/sh
# A thermometer: publishes one line a second with nc and reconnects if the server has been down.
# It needs only a shell and nc.
#
#     examples/thermometer.sh [channel [host [port]]]
#     examples/thermometer.sh kitchen 127.0.0.1 8081
#
# It reads the temperature sensor of this machine, or invents values if there is none.

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

publish() {
    echo "NICK thermometer"
    echo "QUIET on" # no OK for each event; errors are still sent and printed
    while printf 'PUB %s {"celsius": %s}\n' "$channel" "$(celsius)"; do
        sleep 1
    done
}

# nc exits when the server closes the connection. Then the next printf fails and ends the loop.
while true; do
    publish 2>/dev/null | nc "$host" "$port"
    echo "no connection to $host:$port, next attempt in 2 seconds" >&2
    sleep 2
done
