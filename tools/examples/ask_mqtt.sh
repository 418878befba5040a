#!/bin/sh
# Ask a device over MQTT 3.1.1, with mosquitto_pub and mosquitto_sub: ask_mqtt.sh DEVICE PROMPT
# With jq the answer is printed as it comes; without it the frames are, one a line.
set -eu
device=$1 prompt=$2
login=${MQTT_LOGIN:-example}
id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
prompt=$(printf %s "$prompt" | sed 's/[\\"]/\\&/g' | tr '\011' ' ' | awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')
ask="{\"id\":\"$id\",\"prompt\":\"$prompt\"}"
reply=edged/v1/$device/reply/$login/$id

set -- -V mqttv311 -h "${MQTT_HOST:-localhost}" -p "${MQTT_PORT:-1883}" -u "$login" -q 1
[ -z "${MQTT_PASSWORD:-}" ] || set -- "$@" -P "$MQTT_PASSWORD"
[ -z "${MQTT_CA:-}" ] || set -- "$@" --cafile "$MQTT_CA"

listener=''
work=$(mktemp -d)
mkfifo "$work/frames"
trap 'kill $listener 2>/dev/null || :; timeout -k 1 5 mosquitto_sub "$@" -i "$id" -t "$reply" -E || :; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM

# First a session at the broker that keeps what comes (-c; -E leaves once subscribed), so that no frame is missed.
# The same without -c ends the session, above. A TLS port that is spoken to without TLS says nothing at all.
timeout -k 1 "${MQTT_CONNECT_SECONDS:-15}" mosquitto_sub "$@" -i "$id" -t "$reply" -c -E || {
    echo "the broker does not let $login in; a TLS port wants MQTT_CA" >&2
    exit 1
}
attempt=1 last=-1
: >"$work/shown"
while :; do
    # Again and again, under the same id: it is never computed twice.
    mosquitto_pub "$@" -t "edged/v1/$device/ask/$login" -m "$ask"
    mosquitto_sub "$@" -i "$id" -t "$reply" -c -W "${MQTT_REPEAT_SECONDS:-30}" >"$work/frames" 2>/dev/null &
    listener=$!
    while read -r frame; do
        if ! command -v jq >/dev/null; then
            printf '%s\n' "$frame"
            case $frame in
                *'"type":"done"'*) exit 0 ;;
                *'"type":"error"'*) exit 1 ;;
            esac
            continue
        fi
        printf %s "$frame" | jq -j '.text // ""' >"$work/text"
        read -r type its_attempt seq <<END
$(printf %s "$frame" | jq -r '"\(.type) \(.attempt) \(.seq)"')
END
        case $type in
            chunk)
                if [ "$its_attempt" -gt "$attempt" ]; then # the device was restarted: the text begins anew
                    attempt=$its_attempt last=-1
                    : >"$work/shown"
                    echo
                fi
                if [ "$its_attempt" -eq "$attempt" ] && [ "$seq" -gt "$last" ]; then # else it came twice
                    last=$seq
                    tee -a "$work/shown" <"$work/text"
                fi ;;
            done) # whichever chunks came, this text counts
                echo
                cmp -s "$work/text" "$work/shown" || { cat "$work/text"; echo; }
                exit 0 ;;
            error)
                printf %s "$frame" | jq -r '"\(.code): \(.message)"' >&2
                exit 1 ;;
        esac
    done <"$work/frames"
done
