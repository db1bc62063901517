#!/bin/sh
# Floods stderr.
yes "noise noise noise" >&2 &
sleep 1
echo "done"
wait
