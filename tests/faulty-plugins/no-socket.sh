#!/bin/sh
# Names a socket that is not there.
echo "1|0|unix|$PLUGIN_UNIX_SOCKET_DIR/none|grpc|"
exec sleep 100000
