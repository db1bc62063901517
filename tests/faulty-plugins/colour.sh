#!/bin/sh
# Colours its handshake.
printf '\033[32m1|0|unix|%s/plugin|grpc|\n' "$PLUGIN_UNIX_SOCKET_DIR"
exec sleep 100000
