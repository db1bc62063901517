#!/bin/sh
# Prints nothing and stays.
exec sleep 100000
