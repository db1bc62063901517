#!/bin/sh
# A provider on Nomad: an instance is a dispatched job with an SSH server.
#
# Needs nomad and jq; NOMAD_ADDR and NOMAD_TOKEN belong into env of plugin_config. For
# fleeting-plugin-script, mode = "ops", settings:
#   job   a parameterized job of type batch, this group's own, with one task whose port is
#         labelled "ssh"; needed
set -eu

request=$(cat)
get() { printf '%s' "$request" | jq -r "$1"; }
job=$(get '.settings.job // error("settings.job is needed")')

case $1 in
init)
    nomad job status -short "$job" >/dev/null
    echo '{}'
    ;;
create)
    set --
    for token in $(get '.tokens[]'); do
        # With the same token Nomad dispatches nothing twice.
        answer=$(nomad job dispatch -detach -idempotency-token "$token" "$job") || break
        set -- "$@" "$(printf '%s\n' "$answer" | sed -n 's/^Dispatched Job ID *= *//p')"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{created: $ARGS.positional}' --args "$@"
    ;;
delete)
    set --
    for id in $(get '.instances[]'); do
        if ! complaint=$(nomad job stop -detach -purge -yes "$id" 2>&1 >/dev/null); then
            case $complaint in
            *"No job(s) with prefix or ID"*) ;;
            *) echo "$complaint" >&2; break ;;
            esac
        fi
        set -- "$@" "$id"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{deleted: $ARGS.positional}' --args "$@"
    ;;
list)
    jobs=$(nomad operator api "/v1/jobs?prefix=$job/dispatch-") || exit 75
    printf '%s' "$jobs" | jq -c '{instances: [.[] | {
        id: .ID,
        state: (
            if .Stop then "deleting"
            # It ended by itself: the host deletes what is left of it.
            elif .Status == "dead" then "timeout"
            elif ([.JobSummary.Summary[]?.Running] | add // 0) > 0 then "running"
            else "creating" end)
    }]}'
    ;;
connect)
    id=$(get .instance)
    allocations=$(nomad job allocs -json "$id") || exit 75
    allocation=$(printf '%s' "$allocations" |
        jq -r 'map(select(.ClientStatus == "running"))[0].ID // empty')
    [ -n "$allocation" ] || { echo "$id has no running allocation" >&2; exit 75; }
    allocation=$(nomad alloc status -json "$allocation") || exit 75
    printf '%s' "$allocation" | jq -c '
        [.AllocatedResources.Shared.Ports[]? | select(.Label == "ssh") |
            {address: "\(.HostIP):\(.Value)"}][0] // error("it has no port labelled ssh")'
    ;;
*) exit 64 ;;
esac
