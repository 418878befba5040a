#!/bin/sh
# Ask a device over MQTT 3.1.1, with mosquitto_pub and mosquitto_sub: ask_mqtt.sh DEVICE PROMPT
# With jq the answer is printed as it comes; without it the frames are, one a line.
set -eu
device=$1 prompt=$2
login=${MQTT_LOGIN:-example}
id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
body=$(printf %s "$prompt" | sed 's/[\\"]/\\&/g' | tr '\011' ' ' | awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }')

client() {
    program=$1
    shift
    "$program" -V mqttv311 -h "${MQTT_HOST:-localhost}" -p "${MQTT_PORT:-1883}" -u "$login" \
        ${MQTT_PASSWORD:+-P "$MQTT_PASSWORD"} ${MQTT_CA:+--cafile "$MQTT_CA"} -q 1 "$@"
}
replies() {
    client mosquitto_sub -i "ask-$id" -t "edged/v1/$device/reply/$login/$id" "$@"
}

work=$(mktemp -d)
mkfifo "$work/frames"
trap 'kill $jobs 2>/dev/null || :; replies -E || :; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM
jobs=''
# First a session at the broker that keeps what comes (-c, then -E: leave once subscribed), then the ask, so that no
# frame is missed; -E without -c ends the session.
replies -c -E
replies -c >"$work/frames" &
jobs=$!
# Repeated under the same id until the answer has come: it is never computed twice.
while client mosquitto_pub -t "edged/v1/$device/ask/$login" -m "{\"id\":\"$id\",\"prompt\":\"$body\"}"; do
    sleep "${MQTT_REPEAT_SECONDS:-30}"
done &
jobs="$jobs $!"

attempt=1 last=-1
: >"$work/shown"
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
            [ "$its_attempt" -eq "$attempt" ] && [ "$seq" -gt "$last" ] || continue # it came twice
            last=$seq
            tee -a "$work/shown" <"$work/text" ;;
        done) # whichever chunks came, this text counts
            echo
            cmp -s "$work/text" "$work/shown" || { cat "$work/text"; echo; }
            exit 0 ;;
        error)
            printf %s "$frame" | jq -r '"\(.code): \(.message)"' >&2
            exit 1 ;;
    esac
done <"$work/frames"
exit 1
