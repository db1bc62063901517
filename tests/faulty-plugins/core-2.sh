#!/bin/sh
# Speaks another version of go-plugin.
echo "2|0|unix|$PLUGIN_UNIX_SOCKET_DIR/plugin|grpc|"
exec sleep 100000
