#!/bin/sh
# Makes what edged.conf names: a CA, the broker's certificate, passwords and the access list.
set -eu
umask 077

usage() {
    cat <<'END'
usage: setup.sh [--name NAME]... [--device ID]... [--requester LOGIN]... [--operator LOGIN]...
                [--dir DIRECTORY] [--port PORT]

Sets a mosquitto 2.0 up for edged. Run it again at any time: what is there is kept, keys and passwords above all.

  --name NAME         a host name or address by which the broker is reached; it goes into its certificate
  --device ID         a device; its login is its device_id
  --requester LOGIN   someone who asks
  --operator LOGIN    someone who watches, commands, and may ask
  --dir DIRECTORY     where mosquitto's configuration is (/etc/mosquitto)
  --port PORT         where the broker listens (8883); only for the first run

In DIRECTORY/edged it keeps the lists names, devices, requesters and operators, one a line, to which the options add;
who is taken out of a list loses access with the next run. The password of a new login is in secrets/LOGIN: carry it
over, then remove that file. With your own password in secrets/LOGIN before the first run, that one is taken.
Then: systemctl reload mosquitto (the first time: restart).
END
}

fail() {
    echo "setup.sh: $1" >&2
    exit "${2:-1}"
}

here=$(cd "$(dirname "$0")" && pwd)
dir=/etc/mosquitto
port=
added=
newline='
'
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --name | --device | --requester | --operator | --dir | --port)
            [ $# -ge 2 ] || fail "$1 wants a value (--help)" 2
            case $2 in
                '' | *[!A-Za-z0-9_.:/-]*) fail "$1 '$2': only A-Z a-z 0-9 _ . : / - can be used" 2 ;;
            esac
            case $1 in
                --dir) dir=$2 ;;
                --port) port=$2 ;;
                *) added="$added${1#--}s $2$newline" ;;
            esac
            shift 2 ;;
        *) fail "unknown argument: $1 (--help)" 2 ;;
    esac
done
case $port in
    '') ;;
    *[!0-9]*) fail "--port '$port': must be a number" 2 ;;
esac
command -v openssl >/dev/null || fail "openssl is missing: apt-get install openssl"
command -v mosquitto_passwd >/dev/null || fail "mosquitto_passwd is missing: apt-get install mosquitto"
[ -d "$dir" ] || fail "$dir is no directory: install mosquitto, or name another with --dir"
dir=$(cd "$dir" && pwd)
base=$dir/edged
mkdir -p "$base/secrets" "$dir/conf.d"
chmod 755 "$base" "$dir/conf.d"
cd "$base"
work=$(mktemp -d "$base/.setup.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The lists

touch devices requesters operators
[ -e names ] || printf '%s\n' localhost 127.0.0.1 ::1 "$(uname -n)" >names
for list in names devices requesters operators; do
    { cat "$list"; printf %s "$added" | sed -n "s/^$list //p"; } | tr -d ' \t\r' |
        awk '$0 != "" && !/^#/ && !seen[$0]++' >"$work/$list"
done

cd "$work"
grep -vxE '[a-z0-9][a-z0-9-]{0,62}' devices >bad &&
    fail "'$(head -n 1 bad)' can't be a device: 1 to 63 characters of a-z 0-9 -, the first of them no -" 2
cat requesters operators | grep -vxE '[A-Za-z0-9_.-]{1,64}' >bad &&
    fail "'$(head -n 1 bad)' can't be a login: 1 to 64 characters of A-Z a-z 0-9 _ . -" 2
grep -vxE '[A-Za-z0-9_.:-]+' names >bad &&
    fail "'$(head -n 1 bad)' is no host name or address" 2
# Prompts without a name count as those of the client open: a login of that name would share its limits.
cat requesters operators | grep -xE 'open' >bad && fail "'open' can't be a login: it stands for prompts without one" 2
cat devices requesters operators | sort >logins
uniq -d logins >bad
[ ! -s bad ] || fail "'$(head -n 1 bad)' is in two of the lists devices, requesters and operators: a login has one role" 2
for list in names devices requesters operators; do
    cmp -s "$list" "$base/$list" || cat "$list" >"$base/$list"
done

# Certificates

cd "$base"
cat >"$work/openssl.cnf" <<'END'
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
[ -e ca.key ] || { openssl ecparam -genkey -name prime256v1 -noout -out "$work/ca.key" && mv "$work/ca.key" ca.key; }
if [ ! -e ca.crt ]; then
    openssl req -config "$work/openssl.cnf" -x509 -new -key ca.key -sha256 -days 7300 \
        -subj "/CN=edged CA of $(uname -n | cut -c 1-40)" -extensions ca -out "$work/ca.crt"
    mv "$work/ca.crt" ca.crt
fi
[ -e server.key ] ||
    { openssl ecparam -genkey -name prime256v1 -noout -out "$work/server.key" && mv "$work/server.key" server.key; }
awk '{ print (/:/ || /^[0-9.]+$/ ? "IP:" : "DNS:") $0 }' names | paste -s -d , - >"$work/san"
if ! cmp -s "$work/san" server.names || ! openssl x509 -in server.crt -noout -checkend 2592000 >/dev/null 2>&1; then
    cat >"$work/server.cnf" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $(cat "$work/san")
END
    openssl req -config "$work/openssl.cnf" -new -key server.key -subj "/CN=$(head -n 1 names | cut -c 1-64)" \
        -out "$work/server.csr"
    openssl x509 -req -in "$work/server.csr" -CA ca.crt -CAkey ca.key -set_serial "0x4$(openssl rand -hex 15)" \
        -sha256 -days 825 -extfile "$work/server.cnf" -out "$work/server.crt" 2>"$work/log" || fail "$(cat "$work/log")"
    mv "$work/server.crt" server.crt
    mv "$work/san" server.names
    echo "the broker's certificate is for: $(paste -s -d ' ' names)"
fi

# Passwords

touch passwords
awk -F : 'NR == FNR { keep[$1]; next } $1 in keep' "$work/logins" passwords >"$work/passwords"
: >"$work/new"
while read -r login; do
    if ! cut -d : -f 1 "$work/passwords" | grep -qxF -e "$login"; then
        [ -s "secrets/$login" ] || openssl rand -hex 16 >"secrets/$login"
        # mosquitto_passwd would take what stands before it for the whole password.
        head -n 1 "secrets/$login" | grep -q : && fail "the password in $base/secrets/$login can't have a : in it"
        printf '%s:%s\n' "$login" "$(head -n 1 "secrets/$login")" >>"$work/new"
        echo "new login $login: its password is in $base/secrets/$login"
    fi
done <"$work/logins"
if [ -s "$work/new" ]; then
    mosquitto_passwd -U "$work/new" >"$work/log" 2>&1 || fail "$(cat "$work/log")"
    cat "$work/new" >>"$work/passwords"
fi

# The access list: each role's rules, for each of its logins

{
    echo "# Made by setup.sh: change the lists devices, requesters and operators instead, and run it again."
    while read -r role files; do
        while read -r login; do
            printf '\nuser %s\n' "$login"
            for file in $files; do
                grep '^topic ' "$here/$file" | sed "s/%u/$login/g"
            done
        done <"$role"
    done <<'END'
devices device.acl
requesters requester.acl
operators requester.acl operator.acl
END
} >"$work/access"

for file in passwords access; do
    cmp -s "$work/$file" "$file" || mv "$work/$file" "$file"
done

conf=$dir/conf.d/edged.conf
[ -n "$port" ] || [ ! -e "$conf" ] || port=$(sed -n 's/^listener \([0-9]*\).*/\1/p' "$conf" | head -n 1)
sed "s|/etc/mosquitto/edged|$base|; s|^listener .*|listener ${port:-8883}|" "$here/edged.conf" >"$work/edged.conf"
if [ ! -e "$conf" ]; then
    mv "$work/edged.conf" "$conf"
elif ! cmp -s "$work/edged.conf" "$conf"; then
    echo "$conf is kept; it differs from $here/edged.conf"
fi
chmod 644 ca.crt server.crt names devices requesters operators server.names "$conf"
# mosquitto reads them after it has given up root.
if [ "$(id -u)" = 0 ] && id mosquitto >/dev/null 2>&1; then
    chown mosquitto: server.key passwords access
fi
