#!/bin/sh
# A provider whose instances are directories, for fleeting-plugin-script. THINGS is where.
set -eu

request=$(cat)

# The strings of a list of the request, one per word.
strings() {
  printf '%s' "$request" | sed "s/.*\"$1\":\[\([^]]*\)\].*/\1/" | tr -d '"' | tr , ' '
}

# A list of strings in JSON.
list() {
  words=
  for word in "$@"; do
    words="$words${words:+,}\"$word\""
  done
  printf '[%s]' "$words"
}

case $1 in
init)
  echo '{"suspend": true}'
  ;;
create)
  # shellcheck disable=SC2046
  set -- $(strings tokens)
  for token in "$@"; do
    mkdir -p "$THINGS/$token"
  done
  echo "{\"created\": $(list "$@")}"
  ;;
list)
  instances=
  for thing in "$THINGS"/*; do
    [ -d "$thing" ] || continue
    state=running
    [ ! -d "$thing/paused" ] || state=suspended
    instances="$instances${instances:+,}{\"id\": \"${thing##*/}\", \"state\": \"$state\"}"
  done
  echo "{\"instances\": [$instances]}"
  ;;
delete | suspend | resume)
  operation=$1
  # shellcheck disable=SC2046
  set -- $(strings instances)
  for id in "$@"; do
    case $operation in
    delete) rm -rf "${THINGS:?}/$id" ;;
    suspend) mkdir -p "$THINGS/$id/paused" ;;
    resume) rm -rf "$THINGS/$id/paused" ;;
    esac
  done
  case $operation in
  delete) answer=deleted ;;
  suspend) answer=suspended ;;
  resume) answer=resumed ;;
  esac
  echo "{\"$answer\": $(list "$@")}"
  ;;
connect)
  id=$(printf '%s' "$request" | sed 's/.*"instance":"\([^"]*\)".*/\1/')
  [ -d "$THINGS/$id" ] || { echo "instance $id does not exist" >&2; exit 1; }
  echo '{"address": "192.0.2.1:2222", "user": "ci", "password": "word"}'
  ;;
*) exit 64 ;;
esac
