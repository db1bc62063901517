#!/bin/sh
# Prints a line without an end.
head -c 1048576 /dev/zero | tr '\0' x
exec sleep 100000
