#!/bin/sh
# A provider on Docker: an instance is a container with an SSH server, on a port of this
# machine's loopback address.
#
# Needs docker and jq. For fleeting-plugin-script, mode = "ops", settings:
#   image       has an SSH server as its command; needed
#   public_key  with it any image that has /usr/sbin/sshd will do: the key may log in as root
#
# Containers share the kernel. Instances that run code of strangers should be machines.
set -eu

request=$(cat)
get() { printf '%s' "$request" | jq -r "$1"; }
group=$(get .group)
exists() { docker container inspect "$1" >/dev/null 2>&1; }

run() {
    key=$(get '.settings.public_key // ""')
    image=$(get .settings.image)
    set -- --detach --name "$1" --label "mayfly.group=$group" --publish 127.0.0.1::22
    if [ -z "$key" ]; then
        docker run "$@" "$image" >/dev/null
        return
    fi
    # shellcheck disable=SC2016 # the container's shell expands it
    docker run "$@" --env "PUBLIC_KEY=$key" --entrypoint /bin/sh "$image" -ec '
        mkdir -p -m 700 /run/sshd /root/.ssh
        echo "$PUBLIC_KEY" >/root/.ssh/authorized_keys
        ssh-keygen -A
        exec /usr/sbin/sshd -D -e' >/dev/null
}

# Does something with each instance that there is; prints KEY with those that it did.
each() {
    key=$1 command=$2
    set --
    for id in $(get '.instances[]'); do
        # Options of the command are words of their own.
        # shellcheck disable=SC2086
        ! exists "$id" || docker $command "$id" >/dev/null || break
        set -- "$@" "$id"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{($key): $ARGS.positional}' --arg key "$key" --args "$@"
}

case $1 in
init)
    [ "$(get '.settings.image // ""')" ] || { echo "settings.image is missing" >&2; exit 1; }
    docker version >/dev/null
    echo '{"suspend": true}'
    ;;
create)
    set --
    for token in $(get '.tokens[]'); do
        exists "$group-$token" || run "$group-$token" || break
        set -- "$@" "$group-$token"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{created: $ARGS.positional}' --args "$@"
    ;;
delete) each deleted "rm --force --volumes" ;;
suspend) each suspended pause ;;
resume) each resumed unpause ;;
list)
    ids=$(docker ps --all --quiet --filter "label=mayfly.group=$group") || exit 75
    [ -n "$ids" ] || { echo '{"instances": []}'; exit; }
    # One that went meanwhile is a failure of the whole: the next list is right again.
    # shellcheck disable=SC2086
    containers=$(docker container inspect $ids) || exit 75
    printf '%s' "$containers" | jq -c '{instances: [.[] | {
        id: (.Name | ltrimstr("/")),
        state: ({
            created: "creating", running: "running", restarting: "creating",
            paused: "suspended", removing: "deleting"
        }[.State.Status] // "timeout")
    } + ([.NetworkSettings.Ports["22/tcp"][]? |
        {address: "\(.HostIp):\(.HostPort)"}] | first // {})]}'
    ;;
*) exit 64 ;;
esac
