#!/usr/bin/env bash
# Installs the packages in a clean Debian 12 that has no .NET, boots it with systemd in a container of its own, and looks at
# what an operator would: tests/deploy/boot.sh FOLDER, which has the .deb files of this machine. Root.
# The last line reads `N passed, N failed`. A Debian is made once, by debootstrap, in artifacts/package/bookworm.
set -euo pipefail
packages=$(cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
base=$here/../../artifacts/package/bookworm
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
root=$work/root
trap 'umount "$root" 2>/dev/null || true; rm -rf "$work"' EXIT

# What the checks use, and what the packages depend on, so that installing them needs no network.
tools=(systemd systemd-sysv dbus man-db bash-completion iputils-ping)
dependencies=(libssl3 iproute2 nftables procps)
if [ "$(cat "$base/made" 2>/dev/null)" != "${tools[*]} ${dependencies[*]}" ]; then
    rm -rf "$base"
    mkdir -p "$base"
    debootstrap --variant=minbase bookworm "$base" >"$base.log" 2>&1
    chroot "$base" apt-get install -y -qq --no-install-recommends "${tools[@]}" "${dependencies[@]}" >>"$base.log" 2>&1
    echo "${tools[*]} ${dependencies[*]}" >"$base/made"
fi

mkdir "$root" "$work/upper" "$work/work"
mount -t overlay -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work" overlay "$root"
cp "$packages"/lightway-{server,client}_*_"$architecture".deb "$root/root/"
cp "$here/checks.sh" "$root/checks.sh"
cat >"$root/etc/systemd/system/checks.service" <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /checks.sh
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../checks.service "$root/etc/systemd/system/multi-user.target.wants/checks.service"
# The device of the container; any user may open it, as on a usual machine.
mkdir -p "$work/dev"
mount -t tmpfs tmpfs "$work/dev"
mknod -m 666 "$work/dev/tun" c 10 200
timeout 300 systemd-nspawn --quiet --directory="$root" --boot --register=no --keep-unit --private-network \
    --capability=CAP_BPF --system-call-filter=bpf --bind="$work/dev/tun:/dev/net/tun" >"$work/console.log" 2>&1 || true
umount "$work/dev"
if [ ! -e "$root/result" ]; then
    tail -n 30 "$work/console.log"
    echo "0 passed, 1 failed"
    exit 1
fi
cat "$root/result"
tail -n 1 "$root/result" | grep -q ', 0 failed$'
