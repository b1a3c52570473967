namespace Lightway.Options

open System

/// Options about io_uring on the TUN, which files of other builds may contain. This build has no ring: what one is for, fewer
/// system calls per byte, comes from superpackets.
[<RequireQualifiedAccess>]
module internal IoUring =
    /// Longest queue of io_uring_setup(2), IORING_MAX_ENTRIES.
    let private maxEntries = 32768

    /// True if a ring is asked for. Refuses wrong values of the three options.
    let read (reader: Reader) : bool =
        reader.Read("iouring_entry_count", Value.int32 1 maxEntries, 1024) |> ignore

        reader.Read("iouring_sqpoll_idle_time", Value.duration, TimeSpan.FromMilliseconds 100L) |> ignore

        reader.Bool("enable_tun_iouring", false)

/// Lines of the help page, one per option, as both programs print them.
[<RequireQualifiedAccess>]
module internal IoUringUsage =
    let enableTunIouring =
        "accepted, but there is no io_uring in this build: the TUN is read by read(2), up to 64 KiB at a time with enable_tun_offload, and the log says so. Default: false."

    let iouringEntryCount =
        "entries of the io_uring queue, 1 to 32768; checked, but this build has no ring. Default: 1024."

    let iouringSqpollIdleTime =
        "idle time after which the kernel's polling thread sleeps, 0 for none; checked, but this build has no ring. Default: 100ms."

/// How a request for a ring is met.
[<RequireQualifiedAccess>]
module IoUringAnswer =
    /// The line of the log, for a program that reads superpackets from the TUN, or does not.
    let text (readsSuperpackets: bool) : string =
        if readsSuperpackets then
            "enable_tun_iouring: this build reads the TUN by read(2) instead of io_uring; each read brings up to 64 KiB, as superpackets"
        else
            "enable_tun_iouring: this build reads the TUN by read(2) instead of io_uring; each read brings one packet, or up to 64 KiB with enable_tun_offload: true"

/// Lines of the help page about looking into TLS, as both programs print them.
[<RequireQualifiedAccess>]
module internal TlsUsage =
    let keylog =
        "file to which the TLS secrets of every connection are appended (NSS key log format, for Wireshark); whoever has it can decrypt recorded traffic. Default: none."

    let tlsDebug =
        "log the records of each TLS handshake: their direction, type, epoch and length. Default: false."
