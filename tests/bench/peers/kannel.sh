#!/usr/bin/env bash
# Kannel, HTTP in and SMPP out: kannel.sh STORE SMPP-HOST SMPP-PORT, where STORE is none, file or spool.
# Says `ready URL` (the message is appended to the URL as to= and text=) and runs until its standard input closes.
set -euo pipefail
store=$1 host=$2 port=$3
directory=$(mktemp -d)
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
admin=$(free_port) box=$(free_port) http=$(free_port)
{
  cat <<END
group = core
admin-port = $admin
admin-password = bench
smsbox-port = $box
smsbox-max-pending = 100
log-file = $directory/bearerbox.log
log-level = 3
END
  case $store in
    none) ;;
    file) printf 'store-type = file\nstore-location = %s/store\n' "$directory" ;;
    spool) mkdir "$directory/spool"; printf 'store-type = spool\nstore-location = %s/spool\n' "$directory" ;;
    *) echo "kannel.sh: no such store: $store" >&2; exit 2 ;;
  esac
  cat <<END

group = smsc
smsc = smpp
smsc-id = main
host = $host
port = $port
transceiver-mode = true
smsc-username = kannel
smsc-password = kannel
system-type = ""
max-pending-submits = 1000
log-level = 3

group = smsbox
bearerbox-host = 127.0.0.1
bearerbox-port = $box
sendsms-port = $http
log-file = $directory/smsbox.log
log-level = 3

group = sendsms-user
username = bench
password = bench
max-messages = 10
concatenation = true
END
} >"$directory/kannel.conf"
/usr/sbin/bearerbox "$directory/kannel.conf" >/dev/null 2>&1 &
bearerbox=$!
smsbox=
stop() {
  [ -z "$smsbox" ] || kill "$smsbox" 2>/dev/null || true
  kill "$bearerbox" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$directory"
}
trap stop EXIT
for _ in $(seq 100); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$box") 2>/dev/null; then break; fi
  sleep 0.1
done
/usr/sbin/smsbox "$directory/kannel.conf" >/dev/null 2>&1 &
smsbox=$!
for _ in $(seq 100); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$http") 2>/dev/null; then break; fi
  sleep 0.1
done
sleep 2 # its connection to the gateway
echo "ready http://127.0.0.1:$http/cgi-bin/sendsms?username=bench&password=bench&from=BOUTIQUE"
cat >/dev/null
