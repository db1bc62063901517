#!/bin/sh
# Listens on another machine.
echo "1|0|tcp|192.0.2.1:10000|grpc|"
exec sleep 100000
