#!/usr/bin/env bash
# Puts nginx and HAProxy in front of a server and checks that streams come through as they are.
# usage: tools/soak/proxies.sh     Needs nginx, haproxy, openssl and python3; TANDEM names the program.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=tools/soak/server.sh
source tools/soak/server.sh
PATH=$PATH:/usr/sbin
need nginx nginx
need haproxy haproxy
need openssl openssl

scratch=$(mktemp -d)
trap 'stop_all "${nginx:-}" "${haproxy:-}" "$server_pid"; rm -rf "$scratch"' EXIT
start_server "$scratch/server.log" || exit 1
backend=${server_url#http://}
mkdir "$scratch/tmp"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
  -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>"$scratch/openssl.out" || { cat "$scratch/openssl.out" && exit 1; }

# What docs/operations.md recommends, between the marks, and nothing else that matters.
cat >"$scratch/nginx.conf" <<END
daemon off; pid $scratch/nginx.pid; error_log $scratch/nginx.log warn;
events {}
http {
  access_log off;
  client_body_temp_path $scratch/tmp; proxy_temp_path $scratch/tmp; fastcgi_temp_path $scratch/tmp;
  uwsgi_temp_path $scratch/tmp; scgi_temp_path $scratch/tmp;
  upstream tandem { server $backend; keepalive 16; keepalive_timeout 3s; }
  server {
    listen 127.0.0.1:18081;
    listen 127.0.0.1:18083 ssl;
    ssl_certificate $scratch/cert.pem;
    ssl_certificate_key $scratch/key.pem;
    client_max_body_size 64m;
    location /tandem/ {
      proxy_pass http://tandem/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host \$host;
    }
  }
}
END
cat >"$scratch/haproxy.cfg" <<END
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:18082
  default_backend tandem
backend tandem
  option httpchk GET /health
  server one $backend check pool-purge-delay 2s
END
nginx -c "$scratch/nginx.conf" -p "$scratch" 2>"$scratch/nginx.out" & nginx=$!
haproxy -f "$scratch/haproxy.cfg" >"$scratch/haproxy.out" 2>&1 & haproxy=$!
sleep 2
SSL_CERT_FILE=$scratch/cert.pem python3 tools/soak/stream_check.py "direct=$server_url" \
  nginx=http://127.0.0.1:18081/tandem nginx-tls=https://127.0.0.1:18083/tandem haproxy=http://127.0.0.1:18082
status=$?
grep -hE 'error|crit|alert' "$scratch"/nginx.log "$scratch"/nginx.out 2>/dev/null | head -n 5
exit "$status"
