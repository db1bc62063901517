#!/bin/sh
# Ends while a child keeps its stdout open.
sleep 100000 &
exit 0
