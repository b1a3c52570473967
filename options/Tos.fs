namespace Lightway.Options

/// What of an inside packet's TOS byte its datagram shows outside. Both programs have these options.
type TosOptions =
    {
        /// The ECN field (RFC 6040 §4.1, normal mode).
        CopyEcn: bool
        /// DSCP (RFC 2983 §3.1). Outside it can be read by anybody on the path.
        CopyDscp: bool
    }

    /// The bits that are copied.
    member this.Bits: byte =
        (if this.CopyEcn then 0x03uy else 0uy) ||| (if this.CopyDscp then 0xFCuy else 0uy)

[<RequireQualifiedAccess>]
module internal TosOptions =
    let read (reader: Reader) : TosOptions =
        { CopyEcn = reader.Bool("copy_ecn", true)
          CopyDscp = reader.Bool("copy_dscp", false) }

/// Lines of the help page, one per option, as both programs print them.
[<RequireQualifiedAccess>]
module internal TosUsage =
    let copyEcn =
        "copy the ECN field of packets to their datagrams, so that routers on the path can mark instead of drop. Default: true."

    let copyDscp =
        "copy DSCP of packets to their datagrams, where everybody on the path can read it. Default: false."
