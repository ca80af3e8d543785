#!/bin/sh
# wait-for - waits until a connected node offers a name, and prints where: HOST PORT.
#
#   wait-for.sh NAME [SECONDS]    default 30; the node asked is that of meshcat: MESHD_ADDR
#
#   db=$(wait-for.sh db 60) && exec psql -h "${db% *}" -p "${db#* }"
#
# Ends with 0; with 2 when the command line is wrong. When time is over: 1, nobody offers it; 3 or 4,
# no node answered by then. What waiting does not mend ends it at once, with the code of meshcat (5
# not a meshd, 6 not allowed ...). Needs meshcat (or what MESHCAT names) and jq.
set -u

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: wait-for.sh NAME [SECONDS]" >&2
    exit 2
fi
name=$1 seconds=${2:-30}
case $seconds in
*[!0-9]*)
    echo "wait-for: '$seconds' is not a whole number of seconds" >&2
    exit 2
    ;;
esac
errors=$(mktemp) || exit
trap 'rm -f "$errors"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
deadline=$(($(date +%s) + seconds))

while :; do
    left=$((deadline - $(date +%s)))
    [ "$left" -gt 0 ] || left=1 # one look at least
    answer=$("${MESHCAT:-meshcat}" lookup "$name" --timeout "$left" --format json 2>"$errors")
    status=$?
    case $status in
    0)
        address=$(printf '%s' "$answer" |
            jq -r '[.results[].routes[] | select(.connected)][0].backend_addr // empty') || exit
        if [ -n "$address" ]; then
            host=${address%:*}
            host=${host#\[} # [v6]:port
            echo "${host%\]} ${address##*:}"
            exit 0
        fi
        status=1 # it is known, but its owner is not connected
        ;;
    1 | 3 | 4) ;; # the name, the node or its answer is not there yet
    *)
        cat "$errors" >&2
        exit "$status"
        ;;
    esac
    if [ "$(date +%s)" -ge "$deadline" ]; then
        cat "$errors" >&2
        echo "wait-for: nobody offers $name after $seconds s" >&2
        exit "$status"
    fi
    sleep 0.2
done
