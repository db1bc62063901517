#!/bin/sh
# Prints something else than a handshake.
echo "hello world"
exec sleep 100000
