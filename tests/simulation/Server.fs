namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Collections
open System.Collections.Generic
open System.Net
open System.Reflection
open Lightway.Options
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Addresses
open Lightway.Server.Auth
open Lightway.Server.Reload
open Lightway.Server.Sessions
open Lightway.Tunnel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp
open Microsoft.Extensions.Logging

/// Looks at private tables, whose sizes must be bounded. A name that no longer exists fails the run.
[<RequireQualifiedAccess>]
module Peek =
    let private anyField =
        BindingFlags.Instance ||| BindingFlags.NonPublic ||| BindingFlags.Public

    let field<'T> (owner: obj) (name: string) : 'T =
        match owner.GetType().GetField(name, anyField) with
        | null -> invalidOp $"{owner.GetType().Name} has no field {name}"
        | found -> unbox<'T>(found.GetValue owner)

    /// The number of entries of a collection, whenever it is asked.
    let counter (owner: obj) (name: string) : unit -> int =
        let table = field<obj> owner name

        match table with
        | :? ICollection as table -> fun () -> table.Count
        | _ ->
            let count = table.GetType().GetProperty("Count", anyField)
            fun () -> unbox<int>(count.GetValue table)

/// What the simulation knows of a connection of the server, by what it has seen of it.
[<Sealed; AllowNullLiteral>]
type Shadow(number: int, connection: Connection, worker: int, isMute: bool) =
    member _.Number = number
    member _.Connection = connection
    member _.Worker = worker
    member _.IsMute = isMute
    member val LinkUpAt = Int64.MaxValue with get, set
    member val User = "" with get, set
    member val Address = Ipv4Address.None with get, set
    member val OnlineAt = Int64.MaxValue with get, set
    /// The client's connection that it belongs to; -1: not known yet.
    member val Client = -1 with get, set
    /// Its user has logged in too often since, and it must end.
    member val IsCondemned = false with get, set
    /// The order in which sessions have begun.
    member val Order = 0 with get, set
    /// Packets of both directions when its keys were changed last.
    member val UpdatePackets = 0L with get, set
    /// The log has said that it ends.
    member val IsClosing = false with get, set
    /// The id under which its client knew it last.
    member val Session = SessionId.Empty with get, set
    /// A rotation of the session id is under way.
    member val IsRotating = false with get, set
    /// When the latest key update began, or the session.
    member val UpdateAt = Int64.MaxValue with get, set
    /// When a rotation was under way last, or when the session began.
    member val RotatingAt = Int64.MaxValue with get, set

    /// The time to log in is over, by the documentation: 60 s in all, 10 s from the handshake to the request.
    member _.IsOverdue(now: int64, linkUpAt: int64) : bool =
        let hasAsked = not isMute && connection.LastOutsideAt > connection.CreatedAt

        now - connection.CreatedAt > 60_000L
        || (not hasAsked && linkUpAt <> Int64.MaxValue && now - linkUpAt > 10_000L)

/// What the server's parts ask of the world.
type IWorld =
    abstract Now: int64
    abstract Plan: Plan
    abstract Dice: Dice
    abstract Trace: Trace
    abstract Ledger: Ledger
    abstract Network: Internet
    abstract Agenda: Agenda
    /// Milliseconds that the next password check takes.
    abstract CheckTime: unit -> int64

[<RequireQualifiedAccess>]
module ServerSite =
    let address = PeerAddress.Of(false, 0UL, 0xCB007101UL, 27690us) // 203.0.113.1
    let client = Ipv4Address 0x0A7D0005u
    let remote = Ipv4Address 0x0A090807u
    let poolBase = 0x0A7D0000u // 10.125.0.0

    let pool (plan: Plan) =
        IPNetwork.Parse $"10.125.0.0/{plan.PoolPrefix}"

    /// The inside address of a user of `address_map`.
    let fixedAddress (user: int) =
        Ipv4Address(poolBase + 2u + uint32 user)

    let isMute (peer: PeerAddress) =
        peer.IPv4.Value >>> 16 >= 0xC614u && peer.IPv4.Value >>> 16 <= 0xC615u // 198.20, 198.21

    /// A stranger that floods.
    let greedy = 0x64460101u // 100.70.1.1

    let password = "secret"

    let private hash = lazy LibCrypt.Hash(ReadOnlySpan "secret"B, "$1$salt$")
    let private wrong = lazy LibCrypt.Hash(ReadOnlySpan "another"B, "$1$salt$")

    /// Users u0, u1, ..., without those that are missing; of the last ones the password is wrong.
    let users (plan: Plan) (missing: int) : string =
        String.concat
            "\n"
            [ for user in 0 .. plan.Hosts - 1 do
                  if user <> missing then
                      $"u{user}:{(if user >= plan.Hosts - plan.Wrong then wrong else hash).Value}" ]

    /// The text is made only if it is needed.
    let inline require (holds: bool) ([<InlineIfLambda>] text: unit -> string) =
        if not holds then
            raise (Violation(text ()))

/// What all workers of a server are asked together.
type IServerChecks =
    abstract NextNumber: unit -> int
    abstract HalfOpen: int
    abstract HandshakesPerSource: int
    abstract IdleMs: int64
    /// Connections that have ended within this time, at least.
    abstract EndedWithin: now: int64 * time: int64 -> int
    /// Somebody is online with this inside address.
    abstract HasOwner: Ipv4Address -> bool
    /// A frame has been read for a connection.
    abstract Route: number: int * connection: Connection * destination: Ipv4Address -> unit
