#!/bin/sh
# Greets before its handshake.
echo "fleeting-plugin-acme 1.0 starting"
echo "1|0|unix|$PLUGIN_UNIX_SOCKET_DIR/plugin|grpc|"
exec sleep 100000
