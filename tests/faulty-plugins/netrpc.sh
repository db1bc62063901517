#!/bin/sh
# Speaks the RPC that go-plugin had before gRPC.
echo "1|0|unix|$PLUGIN_UNIX_SOCKET_DIR/plugin|netrpc|"
exec sleep 100000
