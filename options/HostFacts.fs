namespace Lightway.Options

open System.Collections.Generic
open System.Net

/// What the host of a server should have, in the terms of ip(8), nft(8), sysctl(8) and ethtool(8).
type HostRequest =
    {
        /// Name of the TUN device, of letters, digits, '.', '_' and '-' only.
        Device: string
        /// IPv4; null: the device gets none.
        Address: IPAddress | null
        Pool: IPNetwork
        /// Bytes, of the TUN device.
        Mtu: int
        /// The device has several queues: the server has several workers, or may have.
        MultiQueue: bool
        /// The user who may open the device without CAP_NET_ADMIN; null: root only.
        Owner: string | null
        /// User id of `Owner`.
        OwnerId: uint32
        /// Bytes that the server's sockets want, if it has no right to more than the limits of the system; 0: it has.
        SocketBuffer: int64
        /// The server reads superpackets of UDP from the device.
        WantsUdpSuperpackets: bool
        /// The device that leads to the Internet; null: it is not known yet.
        Uplink: string | null
        /// The clients reach other networks under the address of this host.
        Nat: bool
        ClientToClient: bool
        ClientToHost: bool
    }

/// A network device, as sysfs (Documentation/ABI/testing/sysfs-class-net) and ip(8) show it.
type HostDevice =
    {
        IsTun: bool
        /// It stays when nobody has it open.
        IsPersistent: bool
        IsMultiQueue: bool
        /// User id; -1: none.
        Owner: int64
        Mtu: int
        TxQueueLen: int
        IsUp: bool
        /// `address/prefix length`.
        Addresses: string list
        /// The main table has a route to the pool that leads here.
        HasPoolRoute: bool
    }

/// The present state of the host, as far as a plan asks for it.
type HostFacts =
    {
        IsRoot: bool
        /// Of the programs that a plan may run, those that are not installed.
        Missing: string list
        Device: HostDevice option
        IsUplinkThere: bool
        /// By name, `net.ipv4.ip_forward`; one that this kernel or namespace does not have is left out.
        Sysctls: Map<string, int64>
        /// rx-udp-gro-forwarding of the uplink: "on", "off", or null if it can't be changed or is not known.
        GroForwarding: string | null
        HasTable: bool
    }

/// One thing to do. Without a command it is a remark.
[<NoComparison>]
type HostStep =
    {
        Reason: string
        /// Program and arguments; empty: a remark.
        Command: IReadOnlyList<string>
        /// Text for the program's standard input; empty: none.
        Input: string
    }

/// What a set-up has changed: key, value before ("-": was not there) and value since. Keys: `device`, `mtu`, `txqueuelen`,
/// `up`, `address`, `route`, `table`, `sysctl:NAME`, `gro:DEVICE`.
type HostChange =
    { Key: string
      Before: string
      Since: string }
