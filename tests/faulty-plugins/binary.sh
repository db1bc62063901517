#!/bin/sh
# Prints bytes that are no text.
printf '\377\376|0|unix\n'
exec sleep 100000
