#!/bin/sh
# Makes a directory that is a system with an SSH server, out of this machine's own files:
# no registry is needed to try a container.
set -eu
root=$1
for program in sh bash sshd ssh-keygen mkdir cat id; do
    path=$(command -v "$program" || echo "/usr/sbin/$program")
    for file in "$path" $(ldd "$path" | grep -o '/[^ ]*'); do
        mkdir -p "$root${file%/*}"
        cp -L "$file" "$root$file"
    done
done
mkdir -p "$root/bin" "$root/etc/ssh" "$root/root" "$root/tmp" "$root/run" "$root/dev" "$root/proc"
[ -e "$root/bin/sh" ] || cp -L /bin/sh "$root/bin/sh"
echo 'UsePAM no' >"$root/etc/ssh/sshd_config"
echo 'root:x:0:' >"$root/etc/group"
echo 'nogroup:x:65534:' >>"$root/etc/group"
echo 'root:*:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'sshd:*:100:65534::/run/sshd:/bin/false' >>"$root/etc/passwd"
