#!/bin/bash
# Runs inside the booted container (boot.sh) and writes to /result.
exec >/result 2>&1
passed=0 failed=0

check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >/tmp/check.log 2>&1; then
        passed=$((passed + 1))
        echo "passed: $name"
    else
        failed=$((failed + 1))
        echo "FAILED: $name: $*"
        tail -n 15 /tmp/check.log
        systemctl status --no-pager --lines=15 lightway-server lightway-client 2>&1 | tail -n 40
    fi
}

property() { systemctl show --property="$2" --value "$1"; }
is() { [ "$1" = "$2" ] || { echo "it is $1, not $2"; return 1; }; }
state() { is "$(property "$1" ActiveState)" "$2"; }
status() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$(property "$1" MainPID)/status"; }
none() { ! "$@"; }
within() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { "$@"; return 1; }
        sleep 0.2
    done
}
drop_in() { # UNIT EXAMPLE
    mkdir -p "/etc/systemd/system/$1.service.d"
    cp "/usr/share/doc/$1/examples/$2" "/etc/systemd/system/$1.service.d/"
    systemctl daemon-reload
}

check "the packages are installed from their files" dpkg --install /root/lightway-*.deb
check "there is no .NET on this machine" none command -v dotnet
check "the programs run, and find their library" lightway-server --version
check "the units are in order" systemd-analyze verify /usr/lib/systemd/system/lightway-{server,server-device,client}.service
for program in lightway-server lightway-client; do
    page() { MANROFFOPT=-ww man --warnings=w --locale=C -l "/usr/share/man/man8/$program.8.gz"; }
    check "man renders the page of $program" grep -q "^ *$program - Lightway VPN" <(page 2>/dev/null)
    check "without a warning" is "$(page 2>&1 >/dev/null)" ""
    check "man finds it by name" man --where "$program"
    check "bash finds its completions" grep -q -- " $program\$" <(bash -ic ". /usr/share/bash-completion/bash_completion; _completion_loader $program; complete -p $program" 2>&1)
done
check "the server does not start before it is configured" none systemctl is-active lightway-server
systemctl start lightway-server
check "started without a configuration, it stays down and has not failed" state lightway-server inactive
check "the directory of the configuration is for root and the service" is "$(stat -c '%U:%G %a' /etc/lightway)" "root:lightway 2750"

check "init writes a set-up" lightway-server init /etc/lightway --address 192.0.2.1:27690
check "the key is root's, and the service may read it" is "$(stat -c '%U:%G %a' /etc/lightway/server.key)" "root:lightway 640"
check "the server starts" systemctl start lightway-server
check "it is ready" state lightway-server active
check "it says what it serves" grep -q "serving 0.0.0.0:27690 on device lightway" <(property lightway-server StatusText)
check "it runs as the user lightway" is "$(status lightway-server Uid | cut -f1)" "$(id -u lightway)"
for set in CapPrm CapEff CapBnd CapAmb CapInh; do
    check "it has no capability: $set" is "$(status lightway-server $set)" 0000000000000000
done
check "it can gain no privilege" is "$(status lightway-server NoNewPrivs)" 1
check "its system calls are filtered" is "$(status lightway-server Seccomp)" 2
check "it sees no other device" none test -e "/proc/$(property lightway-server MainPID)/root/dev/kmsg"
check "it may not write to /etc" none runuser -u lightway -- touch "/proc/$(property lightway-server MainPID)/root/etc/x"

check "the host is prepared: NAT" grep -q "ip saddr 10.125.0.0/16 .* masquerade" <(nft list table inet lightway_lightway)
check "and forwarding" is "$(cat /proc/sys/net/ipv4/ip_forward)" 1
check "and the limits of socket buffers, by sysctl.d" grep -q "^net.core.rmem_max = 15728640" /etc/sysctl.d/60-lightway-server.conf

pid=$(property lightway-server MainPID)
check "a reload ends well" systemctl reload lightway-server
check "the server is ready again" within 5 state lightway-server active
check "it is the same process" is "$(property lightway-server MainPID)" "$pid"
sed -i 's/^SETUP_HOST_OPTIONS=.*/SETUP_HOST_OPTIONS=--no-nat --mtu 1280/' /etc/default/lightway-server
check "other options for the host take effect by a reload" systemctl reload lightway-server-device
check "there is no NAT any more" none grep -q masquerade <(nft list table inet lightway_lightway)
check "and another MTU" is "$(cat /sys/class/net/lightway/mtu)" 1280
check "under a server that goes on" is "$(property lightway-server MainPID)" "$pid"
sed -i 's/^SETUP_HOST_OPTIONS=.*/SETUP_HOST_OPTIONS=/' /etc/default/lightway-server
check "and back" systemctl reload lightway-server-device
check "there is NAT" grep -q masquerade <(nft list table inet lightway_lightway)

# The client in a network of its own: 192.0.2.2 - 192.0.2.1.
ip netns add there
ip link add outside type veth peer name outside netns there
ip address add 192.0.2.1/24 dev outside
ip link set outside up
ip -n there link set lo up
ip -n there address add 192.0.2.2/24 dev outside
ip -n there link set outside up
mkdir -p /etc/systemd/system/lightway-client.service.d
printf '[Service]\nNetworkNamespacePath=/run/netns/there\n' >/etc/systemd/system/lightway-client.service.d/network.conf
systemctl daemon-reload
check "the client starts" systemctl start lightway-client
ping_server() { ip netns exec there ping -c 1 -W 1 10.125.0.2; }
check "the server's inside answers through the tunnel" within 20 ping_server
says_online() { is "$(property lightway-client StatusText)" online; }
check "the client says that it is online" within 5 says_online
check "the client has one capability" is "$(status lightway-client CapEff)" 0000000000001000
echo "control_socket: /run/lightway-client/control.sock" >>/etc/lightway/client.yaml
systemctl restart lightway-client
online_by_status() { grep -q online <(lightway-client status); }
check "with a control socket the client tells how it is" within 20 online_by_status
systemctl stop lightway-client
check "the client ended in order" is "$(property lightway-client Result)" success

# The password as a credential.
mkdir -p -m 700 /etc/credstore
sed -n 's/^password: "\(.*\)"$/\1/p' /etc/lightway/client.yaml >/etc/credstore/lightway-client.password
chmod 600 /etc/credstore/lightway-client.password
sed -i 's/^password: .*/password_file: $CREDENTIALS_DIRECTORY\/password/' /etc/lightway/client.yaml
check "the client starts with its password as a credential" systemctl start lightway-client
check "it gets in" within 20 ping_server
systemctl stop lightway-client
mv /etc/credstore/lightway-client.password /etc/lightway/client.password
drop_in lightway-client credentials.conf
check "the client starts with another file as its credential" systemctl start lightway-client
check "it gets in" within 20 ping_server
systemctl stop lightway-client
rm /etc/systemd/system/lightway-client.service.d/credentials.conf
systemctl daemon-reload
systemctl start lightway-client
check "without the credential it is down, after one try" within 10 state lightway-client failed
check "and says that the password is missing" grep -q password_file <(journalctl -u lightway-client)
check "a configuration that can't be used is final" is "$(property lightway-client NRestarts)" 0
systemctl reset-failed lightway-client
mv /etc/lightway/client.password /etc/credstore/lightway-client.password
drop_in lightway-client no-dns.conf
chgrp lightway /etc/lightway/client.yaml
chmod 640 /etc/lightway/client.yaml
check "init has written that DNS settings are left alone" grep -q "^dns_config_mode: noexec" /etc/lightway/client.yaml
check "the client starts without root" systemctl start lightway-client
check "it gets through as well" within 20 ping_server
check "it runs as the user lightway" is "$(status lightway-client Uid | cut -f1)" "$(id -u lightway)"

# The watchdog: a process that stands still is ended and started again.
mkdir -p /etc/systemd/system/lightway-server.service.d
printf '[Service]\nWatchdogSec=3\n' >/etc/systemd/system/lightway-server.service.d/short.conf
systemctl daemon-reload
systemctl restart lightway-server
pid=$(property lightway-server MainPID)
sleep 7
check "a server that works is not ended by its watchdog" is "$(property lightway-server MainPID)" "$pid"
kill -STOP "$pid"
new_process() { state lightway-server active && ! is "$(property lightway-server MainPID)" "$pid"; }
# SIGABRT waits for a process that is stopped: after TimeoutStopSec it is killed.
check "a server that stands still is replaced" within 40 new_process
rm /etc/systemd/system/lightway-server.service.d/short.conf

chmod 600 /etc/lightway/server.key /etc/lightway/users.htpasswd
systemctl daemon-reload
systemctl restart lightway-server
check "a key that it may not read: it is down" within 5 state lightway-server failed
check "and says what to do" grep -q "run: chgrp .* && chmod 640 /etc/lightway/server.key" <(journalctl -u lightway-server)
drop_in lightway-server credentials.conf
check "with key and users as credentials it starts" systemctl restart lightway-server
check "it is ready with credentials" state lightway-server active
rm /etc/systemd/system/lightway-server.service.d/credentials.conf
chmod 640 /etc/lightway/server.key /etc/lightway/users.htpasswd

systemctl stop lightway-server
systemctl restart lightway-client
tried_again() { [ "$(property lightway-client NRestarts)" -ge 1 ]; }
check "while no server can be reached, the client is started again" within 60 tried_again
systemctl stop lightway-client lightway-server-device
check "the device is gone with its unit" none ip link show lightway
check "so are the rules" none nft list table inet lightway_lightway
check "nothing is forwarded any more" is "$(cat /proc/sys/net/ipv4/ip_forward)" 0
drop_in lightway-server steering.conf
check "with CAP_BPF it starts" systemctl start lightway-server
check "it has that capability only" is "$(status lightway-server CapEff)" 0000008000000000
check "it steers: no warning about the choice of queues" none grep -q "kernel chooses the queue" <(journalctl -u lightway-server --since "@$(date -d "$(property lightway-server ActiveEnterTimestamp)" +%s)")
rm /etc/systemd/system/lightway-server.service.d/steering.conf
systemctl daemon-reload

echo "mode: nonsense" >>/etc/lightway/server.yaml
systemctl restart lightway-server
sleep 3
check "a configuration that can't be used is tried once" is "$(property lightway-server NRestarts) $(property lightway-server ActiveState)" "0 failed"
check "removing the packages" dpkg --purge lightway-server lightway-client
check "keys stay after a purge" test -e /etc/lightway/server.key
check "the unit is gone" none test -e /usr/lib/systemd/system/lightway-server.service
echo "$passed passed, $failed failed"
