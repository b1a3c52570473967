namespace Lightway.Tests.Simulation

open System
open System.Collections.Generic
open Lightway.Tunnel.Udp

/// A datagram on its way.
[<Sealed; AllowNullLiteral>]
type Datagram() =
    member val Bytes: byte[] = Array.zeroCreate 2048
    member val Length = 0 with get, set
    member val From = PeerAddress() with get, set
    /// It comes later than the network would bring it.
    member val IsHeld = false with get, set

/// The network between clients and server: loses, repeats, damages and delays. What it does depends on the dice and the
/// order of events only, never on the bytes.
[<Sealed>]
type Internet(agenda: Agenda, trace: Trace, dice: Dice, plan: Plan) =
    let spare = Stack<Datagram>()

    let take (bytes: ReadOnlySpan<byte>) (from: PeerAddress) =
        let datagram = if spare.Count > 0 then spare.Pop() else Datagram()
        bytes.CopyTo(Span datagram.Bytes)
        datagram.Length <- bytes.Length
        datagram.From <- from
        datagram.IsHeld <- false
        datagram

    // Positions near the ends, so that a length that differs by a byte changes nothing.
    let damage (datagram: Datagram) =
        let at =
            if dice.PerMille 500 then
                dice.Below(min 48 datagram.Length)
            else
                datagram.Length - 1 - dice.Below(min 24 datagram.Length)

        datagram.Bytes[at] <- datagram.Bytes[at] ^^^ byte (1 <<< dice.Below 8)

    let delay () =
        plan.Delay
        + (if plan.Jitter > 0L then
               dice.Between(0L, plan.Jitter)
           else
               0L)

    /// Nothing is lost, repeated or damaged.
    member val IsCalm = false with get, set

    /// Nothing passes.
    member val IsDown = false with get, set

    member val Lost = 0L with get, set

    /// As many datagrams pass, and no more; -1: all do.
    member val Allowed = -1 with get, set

    member _.Free(datagram: Datagram) = spare.Push datagram

    /// Takes a datagram to where `kind` and `who` say.
    member this.Carry(bytes: ReadOnlySpan<byte>, from: PeerAddress, kind: Kind, who: int) : unit =
        let isCut = this.Allowed = 0

        if this.Allowed > 0 then
            this.Allowed <- this.Allowed - 1

        if this.IsDown || isCut || (not this.IsCalm && dice.PerMille plan.Loss) then
            this.Lost <- this.Lost + 1L
            trace.Add(agenda.Now, Mark.Lost, who, int64 bytes.Length)
        else
            let datagram = take bytes from

            if not this.IsCalm && dice.PerMille plan.Damage then
                damage datagram
                trace.Add(agenda.Now, Mark.Damaged, who, int64 bytes.Length)

            agenda.Add(agenda.Now + delay (), kind, who, datagram)

            if not this.IsCalm && dice.PerMille plan.Repeat then
                trace.Add(agenda.Now, Mark.Repeated, who, int64 bytes.Length)
                agenda.Add(agenda.Now + delay () + dice.Between(0L, 500L), kind, who, take bytes from)

    /// The index of the client's host that has this address now.
    member val Hosts = Dictionary<PeerAddress, int>() with get

    /// From the server to whoever has the address.
    member this.ToHost(path: PeerAddress, bytes: ReadOnlySpan<byte>, server: PeerAddress) : unit =
        let mutable host = 0

        if this.Hosts.TryGetValue(path, &host) then
            this.Carry(bytes, server, Kind.ToHost, host)
        else
            trace.Add(agenda.Now, Mark.Unreachable, -1, int64 bytes.Length)
