#!/bin/sh
# Makes an authority for one server and that server's certificate:
#   make-ca.sh DIR [NAME…]      default name keyfob.internal
# ca.pem is what clients trust, server.pem the certificate with its key. The
# authority's own key is not kept: it can sign nothing else.
set -eu
dir=${1:?usage: make-ca.sh DIR [NAME…]}
shift
[ $# -gt 0 ] || set -- keyfob.internal
names=$(printf 'DNS:%s,' "$@")
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/ca.key" -out "$work/ca.pem" -days 3650 \
  -subj "/CN=keyfob, authority of $1" -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign' \
  -addext "nameConstraints=critical,$(printf 'permitted;DNS:%s,' "$@" | sed 's/,$//')" 2>/dev/null
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/server.key" -out "$work/server.csr" -subj "/CN=$1" 2>/dev/null
printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n' "${names%,}" >"$work/ext"
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 825 -extfile "$work/ext" -out "$work/server.crt" 2>/dev/null
cat "$work/server.crt" "$work/server.key" >"$dir/server.pem"
cp "$work/ca.pem" "$dir/ca.pem"
chmod 644 "$dir/ca.pem"
