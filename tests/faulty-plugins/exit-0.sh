#!/bin/sh
# Ends at once, as a Go plugin does that cannot bind its socket.
exit 0
