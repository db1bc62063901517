#!/bin/sh
# A provider on libvirt: an instance is a transient domain on a copy-on-write volume.
#
# Needs virsh and jq; LIBVIRT_DEFAULT_URI says where. For fleeting-plugin-script,
# mode = "ops", settings:
#   domain    path of a domain's XML in which @NAME@ and @DISK@ stand for the name of the
#             domain and the path of its disk; needed
#   pool      storage pool of the volumes; default "default"
#   base      volume in that pool with an installed system that runs an SSH server; needed
#   capacity  size of a disk; default "20G"
#   source    who knows addresses, for virsh domifaddr; default "lease"
set -eu

request=$(cat)
get() { printf '%s' "$request" | jq -r "$1"; }
group=$(get .group)
pool=$(get '.settings.pool // "default"')

# Names end with a token of 16 characters, so no other group's name fits.
is_ours() { case $1 in "$group"-????????????????) true ;; *) false ;; esac; }
is_running() { virsh domstate "$1" >/dev/null 2>&1; }
has_volume() { virsh vol-path --pool "$pool" "$1.qcow2" >/dev/null 2>&1; }

start() {
    has_volume "$1" || virsh vol-create-as "$pool" "$1.qcow2" \
        "$(get '.settings.capacity // "20G"')" --format qcow2 \
        --backing-vol "$(get .settings.base)" --backing-vol-format qcow2 >/dev/null || return
    disk=$(virsh vol-path --pool "$pool" "$1.qcow2") || return
    sed "s|@NAME@|$1|g; s|@DISK@|$disk|g" "$(get .settings.domain)" |
        virsh create /dev/stdin >/dev/null
}

stop() {
    ! is_running "$1" || virsh destroy "$1" >/dev/null || return
    ! has_volume "$1" || virsh vol-delete --pool "$pool" "$1.qcow2" >/dev/null
}

case $1 in
init)
    [ -r "$(get '.settings.domain // ""')" ] || { echo "cannot read settings.domain" >&2; exit 1; }
    virsh vol-path --pool "$pool" "$(get '.settings.base // ""')" >/dev/null
    # Domains that ended by themselves leave their volumes.
    for volume in $(virsh vol-list --pool "$pool" | awk 'NR > 2 { print $1 }'); do
        name=${volume%.qcow2}
        if is_ours "$name" && ! is_running "$name"; then stop "$name"; fi
    done
    echo '{}'
    ;;
create)
    set --
    for token in $(get '.tokens[]'); do
        is_running "$group-$token" || start "$group-$token" || break
        set -- "$@" "$group-$token"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{created: $ARGS.positional}' --args "$@"
    ;;
delete)
    set --
    for id in $(get '.instances[]'); do
        # Nobody deletes another's domain through this script.
        is_ours "$id" || { echo "$id is not of the group $group" >&2; break; }
        stop "$id" || break
        set -- "$@" "$id"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{deleted: $ARGS.positional}' --args "$@"
    ;;
list)
    names=$(virsh list --name) || exit 75
    for name in $names; do
        is_ours "$name" || continue
        address=$(virsh domifaddr "$name" --source "$(get '.settings.source // "lease"')" 2>/dev/null |
            awk '$3 == "ipv4" { sub("/.*", "", $4); print $4; exit }')
        jq -cn --arg id "$name" --arg address "$address" '{id: $id} +
            if $address == "" then {state: "creating"}
            else {state: "running", address: $address} end'
    done | jq -cs '{instances: .}'
    ;;
heartbeat)
    state=$(virsh domstate "$(get .instance)" 2>/dev/null) || exit 75
    jq -cn --arg state "$state" '{healthy: ($state == "running"), reason: $state}'
    ;;
*) exit 64 ;;
esac
