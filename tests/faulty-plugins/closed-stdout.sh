#!/bin/sh
# Closes stdout and stays.
exec >&-
exec sleep 100000
