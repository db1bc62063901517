#!/bin/sh
# Is a plugin of another protocol.
echo "1|5|unix|$PLUGIN_UNIX_SOCKET_DIR/plugin|grpc|"
exec sleep 100000
