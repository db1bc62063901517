#!/bin/sh
# A provider on Kubernetes: an instance is a pod with an SSH server.
#
# Needs kubectl and jq. For fleeting-plugin-script, mode = "ops", settings:
#   namespace   where pods live; default "default"
#   image       has an SSH server as its command; needed
#   public_key  with it any image that has /usr/sbin/sshd will do: the key may log in as root
#   spec        merged into the pod's spec, such as { nodeSelector = { pool = "ci" } }
set -eu

request=$(cat)
get() { printf '%s' "$request" | jq -r "$1"; }
group=$(get .group)
namespace=$(get '.settings.namespace // "default"')
kube() { kubectl --namespace "$namespace" "$@"; }

pod() {
    printf '%s' "$request" | jq --arg name "$1" '
        .settings as $settings | {
            apiVersion: "v1", kind: "Pod",
            metadata: {name: $name, labels: {"mayfly-group": .group}},
            spec: ({
                restartPolicy: "Never",
                # Jobs have no business with the cluster.
                automountServiceAccountToken: false,
                containers: [{
                    name: "instance", image: $settings.image, ports: [{containerPort: 22}],
                    readinessProbe: {tcpSocket: {port: 22}, periodSeconds: 1}
                } + if $settings.public_key then {
                    env: [{name: "PUBLIC_KEY", value: $settings.public_key}],
                    command: ["/bin/sh", "-ec", "
                        mkdir -p -m 700 /run/sshd /root/.ssh
                        echo \"$PUBLIC_KEY\" >/root/.ssh/authorized_keys
                        ssh-keygen -A
                        exec /usr/sbin/sshd -D -e"]
                } else {} end]
            } * ($settings.spec // {}))
        }'
}

case $1 in
init)
    [ "$(get '.settings.image // ""')" ] || { echo "settings.image is missing" >&2; exit 1; }
    kube get pods --selector "mayfly-group=$group" --output name >/dev/null
    echo '{}'
    ;;
create)
    set --
    for token in $(get '.tokens[]'); do
        # A pod of this name is this very pod: applied again, nothing changes.
        pod "$group-$token" | kube apply --filename - >/dev/null || break
        set -- "$@" "$group-$token"
    done
    [ $# -gt 0 ] || exit 1
    jq -cn '{created: $ARGS.positional}' --args "$@"
    ;;
delete)
    set --
    for id in $(get '.instances[]'); do set -- "$@" "$id"; done
    kube delete pod --ignore-not-found --wait=false "$@" >/dev/null
    jq -cn '{deleted: $ARGS.positional}' --args "$@"
    ;;
list)
    pods=$(kube get pods --selector "mayfly-group=$group" --output json) || exit 75
    printf '%s' "$pods" | jq -c '{instances: [.items[] | {
        id: .metadata.name,
        state: (
            if .metadata.deletionTimestamp then "deleting"
            elif .status.phase == "Succeeded" or .status.phase == "Failed" then "timeout"
            elif ([.status.containerStatuses[]?.ready] | any) then "running"
            else "creating" end)
    } + if .status.podIP then {address: .status.podIP} else {} end]}'
    ;;
*) exit 64 ;;
esac
