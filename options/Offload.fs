namespace Lightway.Options

open System

/// Which library seals and opens packets.
type AeadOption =
    | Auto = 0
    | WolfCrypt = 1
    | IpsecMb = 2

/// Segmentation offload. Both programs have these options; they differ only in the default of `EnableTunOffload`.
type OffloadOptions =
    {
        /// Offload in both directions, less what the five switches below take out.
        EnableTunOffload: bool
        /// Datagrams in one UDP GSO send, 1 to 64.
        GsoMaxSegments: int
        /// Longest burst, as time at the recent rate of a worker's sending. At most one second; zero for no limit.
        GsoMaxBurst: TimeSpan
        /// Read single packets from the TUN.
        DisableTunTso: bool
        /// Write TCP packets to the TUN one by one.
        DisableTunGroTcp: bool
        /// Write UDP packets to the TUN one by one.
        DisableTunGroUdp: bool
        /// Send without UDP GSO.
        DisableUdpGso: bool
        /// Receive without UDP GRO.
        DisableUdpGro: bool
        Aead: AeadOption
    }

[<RequireQualifiedAccess>]
module internal OffloadOptions =
    let read (enabledByDefault: bool) (reader: Reader) : OffloadOptions =
        { EnableTunOffload = reader.Bool("enable_tun_offload", enabledByDefault)
          GsoMaxSegments = reader.Read("gso_max_segments", Value.int32 1 64, 64)
          GsoMaxBurst = reader.Read("gso_max_burst", Value.burst, TimeSpan.FromMilliseconds 1L)
          DisableTunTso = reader.Bool("disable_tun_tso", false)
          DisableTunGroTcp = reader.Bool("disable_tun_gro_tcp", false)
          DisableTunGroUdp = reader.Bool("disable_tun_gro_udp", false)
          DisableUdpGso = reader.Bool("disable_udp_gso", false)
          DisableUdpGro = reader.Bool("disable_udp_gro", false)
          Aead =
            reader.Read(
                "aead",
                Value.oneOf
                    [ "auto", AeadOption.Auto; "wolfcrypt", AeadOption.WolfCrypt; "ipsec-mb", AeadOption.IpsecMb ],
                AeadOption.Auto
            ) }

/// Lines of the help page, one per option, as both programs print them.
[<RequireQualifiedAccess>]
module internal OffloadUsage =
    let enableTunOffload (enabledByDefault: bool) : string =
        let fallback = if enabledByDefault then "true" else "false"

        "read and write superpackets on the TUN, send with UDP GSO and receive with UDP GRO, as far as the kernel"
        + $" supports each. Default: {fallback}."

    let gsoMaxSegments =
        "largest number of datagrams in one UDP GSO send, 1 to 64. Default: 64."

    let gsoMaxBurst =
        "longest burst to one peer, as time at the recent rate of all that is sent; at most 1s, 0s for no limit. Default: 1ms."

    let disableTunTso =
        "with enable_tun_offload: let the kernel segment superpackets; read single packets. Default: false."

    let disableTunGroTcp =
        "with enable_tun_offload: write TCP packets to the TUN one by one. Default: false."

    let disableTunGroUdp =
        "with enable_tun_offload: write UDP packets to the TUN one by one. Default: false."

    let disableUdpGso = "with enable_tun_offload: send without UDP GSO. Default: false."

    let disableUdpGro =
        "with enable_tun_offload: receive without UDP GRO. Default: false."

    let aead =
        "library for AES-256-GCM: auto (the faster one that is installed and agrees with the other), wolfcrypt, or"
        + " ipsec-mb (Intel IPsec-MB). Default: auto."
