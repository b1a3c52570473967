namespace Lightway.Protocol

open System
open System.Buffers.Binary

/// Detects an Expresslane path that loses packets while DTLS gets through. Judged on each keepalive reply from the
/// counters that both ends exchange in it. Counts are packets since the connection began; they wrap.
[<Struct>]
type ExpresslaneHealth =
    private
        { PeerSent: uint64
          PeerReceived: uint64
          OwnSent: uint64
          OwnReceived: uint64
          InboundStrikes: byte
          OutboundStrikes: byte
          Missing: byte } // replies without counters, in a row

/// Laws: three bad windows in a row, or three replies in a row without counters, degrade; a good window removes one
/// strike; fewer than 10 packets sent are no evidence.
[<RequireQualifiedAccess>]
module ExpresslaneHealth =
    /// Bytes of the counters in a keepalive: packets sent (8), packets received (8), big-endian.
    [<Literal>]
    let Size = 16

    [<Literal>]
    let private Threshold = 3uy // strikes, or replies without counters

    [<Literal>]
    let private MinimumSent = 10UL // packets in a window

    /// No packets, no strikes.
    let start: ExpresslaneHealth =
        { PeerSent = 0UL
          PeerReceived = 0UL
          OwnSent = 0UL
          OwnReceived = 0UL
          InboundStrikes = 0uy
          OutboundStrikes = 0uy
          Missing = 0uy }

    /// Strikes after a window in which one end sent `sent` packets and the other received `received` of them: one more
    /// when over half were lost, else one less.
    let strike (strikes: byte, sent: uint64, received: uint64) : byte =
        let lost = if sent > received then sent - received else 0UL

        if sent >= MinimumSent && lost > sent - lost then
            if strikes = Byte.MaxValue then strikes else strikes + 1uy
        elif strikes = 0uy then
            0uy
        else
            strikes - 1uy

    /// True when `strikes` end Expresslane for the connection.
    let isFatal (strikes: byte) : bool = strikes >= Threshold

    /// Writes own counters for a keepalive and returns 16.
    let write (sent: uint64, received: uint64, dst: Span<byte>) : int =
        BinaryPrimitives.WriteUInt64BigEndian(dst, sent)
        BinaryPrimitives.WriteUInt64BigEndian(dst.Slice 8, received)
        Size

    /// Judges one keepalive reply with payload `payload` against own counters; the flag says to degrade.
    let step
        (health: ExpresslaneHealth, payload: ReadOnlySpan<byte>, sent: uint64, received: uint64)
        : struct (ExpresslaneHealth * bool) =
        if payload.Length <> Size then
            let missing = min Threshold (health.Missing + 1uy)
            struct ({ health with Missing = missing }, missing >= Threshold)
        else
            let peerSent = BinaryPrimitives.ReadUInt64BigEndian payload
            let peerReceived = BinaryPrimitives.ReadUInt64BigEndian(payload.Slice 8)

            let inbound =
                strike (health.InboundStrikes, peerSent - health.PeerSent, received - health.OwnReceived)

            let outbound =
                strike (health.OutboundStrikes, sent - health.OwnSent, peerReceived - health.PeerReceived)

            struct ({ PeerSent = peerSent
                      PeerReceived = peerReceived
                      OwnSent = sent
                      OwnReceived = received
                      InboundStrikes = inbound
                      OutboundStrikes = outbound
                      Missing = 0uy },
                    isFatal inbound || isFatal outbound)
