#!/bin/sh
# Is a plugin of another program, which refuses this one.
cat >&2 <<END
This binary is a plugin. These are not meant to be executed directly.
Please execute the program that consumes these plugins, which will
load any plugins automatically
END
exit 1
