#!/bin/sh
# Prints half a handshake.
echo "1|0|unix"
exec sleep 100000
