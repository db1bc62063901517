#!/bin/sh
# Ignores every signal that can be ignored, and so does its child.
trap "" TERM INT HUP QUIT
sleep 100000 &
echo "go away"
while :; do sleep 100000; done
