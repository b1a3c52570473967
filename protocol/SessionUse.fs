namespace Lightway.Protocol

/// What a session was used for within some time, for statistics.
type SessionUse =
    /// Nothing came from the peer.
    | Silent = 0
    /// Something came, but no packet: keepalives, for example.
    | Standby = 1
    /// A packet came.
    | Active = 2

[<RequireQualifiedAccess>]
module SessionUse =
    /// The windows that the statistics have, in minutes.
    let windows: int[] = [| 5; 15; 60 |]

    /// Laws: active within a window is active within each longer one; a later datagram never makes a session more silent.
    /// `lastOutside`: when the last authenticated datagram came. `lastPacket`: when the last one with a packet came;
    /// Int64.MinValue if none did.
    let within (window: int64<ms>, now: int64<ms>, lastOutside: int64<ms>, lastPacket: int64<ms>) : SessionUse =
        let since = now - window

        if lastPacket >= since then SessionUse.Active
        elif lastOutside >= since then SessionUse.Standby
        else SessionUse.Silent
