#!/bin/sh
# Names a file that nobody listens on.
: > "$PLUGIN_UNIX_SOCKET_DIR/plugin"
echo "1|0|unix|$PLUGIN_UNIX_SOCKET_DIR/plugin|grpc|"
exec sleep 100000
