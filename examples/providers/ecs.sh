#!/bin/sh
# A provider on Amazon ECS: an instance is a task with an SSH server and an address of its
# own (network mode awsvpc).
#
# Needs the AWS command line and jq. For fleeting-plugin-script, mode = "ops", settings:
#   task_definition  family or family:revision, with an SSH server in it; needed
#   subnets          list; needed
#   security_groups  list
#   cluster          default "default"
#   launch_type      default "FARGATE"
#   public_ip        true: instances get public addresses, too
set -eu

request=$(cat)
get() { printf '%s' "$request" | jq -r "$1"; }
group=$(get .group)
cluster=$(get '.settings.cluster // "default"')
ecs() { aws ecs "$@" --cluster "$cluster" --output json; }

run_task() {
    ecs run-task --count 1 --client-token "$1" --started-by "$group" \
        --task-definition "$(get .settings.task_definition)" \
        --launch-type "$(get '.settings.launch_type // "FARGATE"')" \
        --network-configuration "$(printf '%s' "$request" | jq -c '.settings | {
            awsvpcConfiguration: {
                subnets: .subnets,
                securityGroups: (.security_groups // []),
                assignPublicIp: (if .public_ip then "ENABLED" else "DISABLED" end)
            }}')"
}

case $1 in
init)
    get '.settings | if .task_definition and .subnets then empty
        else error("settings.task_definition and settings.subnets are needed") end'
    ecs list-tasks --started-by "$group" --max-items 1 >/dev/null
    echo '{}'
    ;;
create)
    set --
    for token in $(get '.tokens[]'); do
        # With the same client token ECS answers the task that it started before.
        answer=$(run_task "$token") || break
        failures=$(printf '%s' "$answer" | jq -r '.failures[] | "\(.reason) \(.detail // "")"')
        [ -z "$failures" ] || { echo "$failures" >&2; break; }
        set -- "$@" "$(printf '%s' "$answer" | jq -r '.tasks[0].taskArn | split("/") | last')"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{created: $ARGS.positional}' --args "$@"
    ;;
delete)
    set --
    for id in $(get '.instances[]'); do
        if ! complaint=$(ecs stop-task --task "$id" --reason "not needed any more" 2>&1 >/dev/null)
        then
            case $complaint in
            *"task was not found"*) ;;
            *) echo "$complaint" >&2; break ;;
            esac
        fi
        set -- "$@" "$id"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{deleted: $ARGS.positional}' --args "$@"
    ;;
list)
    # Tasks that were told to stop are not in this list: for the group they are gone.
    tasks=$(ecs list-tasks --started-by "$group") || exit 75
    tasks=$(printf '%s' "$tasks" | jq -r '.taskArns[]')
    [ -n "$tasks" ] || { echo '{"instances": []}'; exit; }
    described=$(printf '%s\n' "$tasks" |
        xargs -n 100 aws ecs describe-tasks --cluster "$cluster" --output json --tasks) || exit 75
    printf '%s' "$described" | jq -cs '{instances: [.[].tasks[] | {
        id: (.taskArn | split("/") | last),
        state: (
            if .lastStatus == "RUNNING" and .desiredStatus == "RUNNING" then "running"
            elif .lastStatus == "STOPPED" then "deleted"
            elif .desiredStatus == "STOPPED" then "deleting"
            else "creating" end)
    } + ([.attachments[].details[] | select(.name == "privateIPv4Address") |
        {address: .value}] | add // {})]}'
    ;;
*) exit 64 ;;
esac
