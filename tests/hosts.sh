#!/usr/bin/env bash
# Hosts on one machine, for tests, as root: each has a network address, a name, processes, a
# temporary folder and an sshd of its own; a switch joins them.
#   hosts.sh up N FOLDER...    host0, host1, .. at 10.88.0.1, ..; the folders are the same on all
#   hosts.sh cut I | mend I    pulls and plugs the cable of host I
#   hosts.sh down
# $HOSTS: a folder for their state.  `nsenter --all -t $(cat $HOSTS/pid0) COMMAND` runs on host0.
# $NET: what their network namespaces begin with; sets with different ones stand side by side.
set -euo pipefail

tmp=$(dirname "$(mktemp -u)")

# On a host, before its sshd: its own name and temporary folder, in which the folders shared lie.
host() {
    hostname "$1"
    mkdir -p /run/januslm-tmp
    mount --bind "$tmp" /run/januslm-tmp
    mount -t tmpfs tmpfs "$tmp"
    chmod 1777 "$tmp"
    for folder in "$HOSTS" "${@:2}"; do
        [[ $folder == "$tmp"/* ]] || continue
        mkdir -p "$folder"
        mount --bind "/run/januslm-tmp/${folder#"$tmp"/}" "$folder"
    done
    umount -l /run/januslm-tmp
    exec /usr/sbin/sshd -D -e -p 2222 -f /dev/null -h "$HOSTS/hostkey" -o PidFile=none \
        -o AuthorizedKeysFile="$HOSTS/id.pub" -o StrictModes=no -o UsePAM=no -o MaxStartups=50 \
        -o PasswordAuthentication=no -o PermitRootLogin=prohibit-password
}

up() {
    local count=$1 i
    mkdir -p "$HOSTS" /run/sshd
    for key in id hostkey; do
        [[ -f $HOSTS/$key ]] || ssh-keygen -q -t ed25519 -N '' -f "$HOSTS/$key"
    done
    printf '%s\n' 'Host host* 10.88.0.*' 'Port 2222' "IdentityFile $HOSTS/id" \
        'StrictHostKeyChecking no' 'UserKnownHostsFile /dev/null' 'LogLevel ERROR' \
        >"$HOSTS/ssh_config"
    echo '127.0.0.1 localhost' >"$HOSTS/hosts"
    for ((i = 0; i < count; i++)); do echo "10.88.0.$((i + 1)) host$i" >>"$HOSTS/hosts"; done
    ip netns add "${NET}sw"
    ip -n "${NET}sw" link add br0 type bridge
    ip -n "${NET}sw" link set br0 up
    for ((i = 0; i < count; i++)); do
        ip netns add "$NET$i"
        ip link add eth0 netns "$NET$i" type veth peer name "port$i" netns "${NET}sw"
        ip -n "${NET}sw" link set "port$i" master br0 up
        ip -n "$NET$i" addr add "10.88.0.$((i + 1))/24" dev eth0
        ip -n "$NET$i" link set eth0 up
        ip -n "$NET$i" link set lo up
        mkdir -p "/etc/netns/$NET$i/ssh"
        cp "$HOSTS/hosts" "/etc/netns/$NET$i/hosts"
        cp "$HOSTS/ssh_config" "/etc/netns/$NET$i/ssh/"
        ip netns exec "$NET$i" unshare --uts --mount --pid --fork --kill-child --mount-proc \
            bash "$0" host "host$i" "${@:2}" >"$HOSTS/sshd$i.log" 2>&1 </dev/null &
        echo $! >"$HOSTS/outer$i"
    done
    for ((i = 0; i < count; i++)); do
        until ip netns exec "$NET$i" ssh "host$i" true 2>/dev/null; do sleep 0.1; done
        tr -d ' ' <"/proc/$(cat "$HOSTS/outer$i")/task/$(cat "$HOSTS/outer$i")/children" \
            >"$HOSTS/pid$i"
    done
}

down() {
    local file name
    for file in "$HOSTS"/outer*; do
        [[ ! -f $file ]] || kill -KILL "$(cat "$file")" 2>/dev/null || true
    done
    for name in $(ip netns list | awk -v net="$NET" 'index($1, net) == 1 { print $1 }'); do
        ip netns del "$name"
        rm -rf "/etc/netns/$name"
    done
    rm -f "$HOSTS"/outer* "$HOSTS"/pid*
}

case $1 in
    up | down | host) "$@" ;;
    cut) ip -n "${NET}sw" link set "port$2" down ;;
    mend) ip -n "${NET}sw" link set "port$2" up ;;
esac
