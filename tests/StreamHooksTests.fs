/// Plugins and codecs of embedding programs on a stream: two connections joined by a TCP connection on loopback.
module Lightway.Tests.StreamHooksTests

open System
open System.Net
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Samples.Hooks
open Lightway.Segmenter
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Hooks
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tcp
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// A client and a server connection over TLS; each end has a loop of its own, which `Until` runs.
type private Joined(hooks: Role -> ConnectionHooks) =
    let loops =
        [ for _ in 1..2 -> new Epoll() ] |> List.map (fun epoll -> epoll, new StreamLoop(epoll))

    let server = new End(Role.Server, 64, streams = snd loops[0])
    let client = new End(Role.Client, 64, streams = snd loops[1])
    let listener = StreamListener.BindGroup(IPEndPoint(IPAddress.Loopback, 0), 1)[0]

    let serverTls =
        TlsContext.ForServer(TestCertificate.authority, TestCertificate.key, true, Transport.Stream)

    let clientTls =
        TlsContext.ForClient(
            TestCertificate.authority,
            null,
            false,
            KeyShare.X25519MlKem768,
            TlsContext.DefaultOutsideMtu,
            Transport.Stream
        )

    let clientSession = new TlsSession(clientTls)
    let serverSession = new TlsSession(serverTls)

    let settings role =
        ConnectionSettings(
            Role = role,
            EnableExpresslane = true,
            CreateHooks = Func<ConnectionHooks>(fun () -> hooks role),
            Credentials = AuthRequest.userPassword ("me", "secret"B)
        )

    do
        let path = OutsideAddress(PeerAddress listener.LocalEndPoint, LocalAddress())

        let peer = PeerAddress listener.LocalEndPoint
        let socket = StreamSocket.Connect(&peer, 0u)

        client.Connection <-
            Connection.ForClient(settings Role.Client, client.Context, client, clientSession, socket, &path, client.Now)

        let mutable accepted = Unchecked.defaultof<StreamSocket>
        let mutable from = PeerAddress()

        let isAccepted () =
            listener.Accept(&accepted, &from) = AcceptOutcome.Accepted

        Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) isAccepted) "accepted"
        let path = OutsideAddress(from, LocalAddress())
        let id = server.Context.Ids.Draw()

        server.Connection <-
            Connection.ForServer(
                settings Role.Server,
                server.Context,
                server,
                id,
                serverSession,
                accepted,
                &path,
                server.Now
            )

        server.Connection.Start server.Now
        client.Connection.Start client.Now

    member _.Server = server
    member _.Client = client

    /// Runs both ends until the condition holds. Raises if it does not within 30 s.
    member _.Until (what: string) (condition: unit -> bool) =
        let turn () =
            for epoll, loop in loops do
                loop.Flush 0L
                epoll.Wait 0
                loop.Run 0L
                loop.Flush 0L

            condition ()

        Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) turn) what

    /// Has one end say something that its connection never would.
    member _.Say (role: Role) (frame: byte[]) =
        let own, session =
            if role = Role.Client then
                client, clientSession
            else
                server, serverSession

        session.Write(ReadOnlySpan frame) |> ignore


        if role = Role.Client then
            own.Connection.NetworkChanged own.Now // a ping, after which all is flushed
        else
            own.Connection.Grant(
                { LocalIp = Inside.Client
                  PeerIp = Inside.Client
                  DnsIp = Inside.Client
                  Mtu = 1350
                  Session = own.Connection.SessionId },
                own.Now
            )

    member this.Connect() =
        this.Until "online" (fun () ->
            client.Connection.State = ConnectionState.Online && server.Connection.State = ConnectionState.Online)

    interface IDisposable with
        member _.Dispose() =
            (client :> IDisposable).Dispose()
            (server :> IDisposable).Dispose()
            listener.Dispose()
            serverTls.Dispose()
            clientTls.Dispose()

            for epoll, _ in loops do
                epoll.Dispose()

let private connected hooks =
    let joined = new Joined(hooks)
    joined.Connect()
    joined

/// Bytes of IPv4 and TCP with timestamps.
[<Literal>]
let private Headers = 52

let private send (own: End) (frame: byte[]) =
    own.Context.InsideMtu <- 1350

    use path =
        new InsidePath(RepeatedFrame(frame, Headers, Left = 1), own.Context, OneRoute own.Connection)

    Expect.isTrue (path.Drain own.Now) "sent"

let private payload = Array.init 24_000 byte

let private superpacket () =
    Superpackets.tcp Inside.Assigned payload 1200

let private single (packet: byte[]) =
    Array.append (Array.zeroCreate VirtioNetHeader.Size) packet

let private up length =
    single (Superpackets.plain Inside.Client Inside.Remote length)

/// Writes down lengths, and refuses those that it is told to.
type private Recorder(wantsSegments: bool, refused: int) =
    let verdict length =
        if length = refused then
            PluginVerdict.Drop
        else
            PluginVerdict.Accept

    member val Out = ResizeArray<int>()
    member val In = ResizeArray<int>()

    interface IInsidePlugin with
        member _.WantsSegments = wantsSegments

        member this.Ingress(packet: inref<InsidePacket>) =
            this.Out.Add packet.Bytes.Length
            verdict packet.Bytes.Length

        member this.Egress(packet: Span<byte>) =
            this.In.Add packet.Length
            verdict packet.Length

let private xor (_: Role) =
    ConnectionHooks(Codec = XorCodec 0x5Auy)

let private encodingFrame kind =
    let frame: byte[] = Array.zeroCreate 10
    Frame.writeEncoding (kind, 1UL, true, Span frame) |> ignore
    frame

let tests =
    testList
        "Hooks on a stream"
        [ for wantsSegments, seen in [ false, [ 24_000 + Headers ]; true, List.replicate 20 (1_200 + Headers) ] do
              test $"plugins see, drop and let pass packets of both directions; segments: {wantsSegments}" {
                  let atServer, atClient = Recorder(wantsSegments, 700), Recorder(wantsSegments, 0)

                  let hooks role =
                      ConnectionHooks(Inside = [| (if role = Role.Server then atServer else atClient) |])

                  use joined = connected hooks
                  let client, server = joined.Client, joined.Server
                  send server (superpacket ())
                  joined.Until "all segments arrive" (fun () -> client.Delivered.Count = 20)
                  Expect.equal (List.ofSeq atServer.Out) seen "what the server's plugin saw"

                  Expect.equal
                      (List.ofSeq atClient.In)
                      (List.replicate 20 (1_200 + Headers))
                      "what the client's plugin saw"

                  for length in [ 500; 700; 900 ] do
                      send client (up length)

                  joined.Until "the rest arrives" (fun () -> server.Delivered.Count = 2)
                  Expect.equal (List.ofSeq atClient.Out) [ 500; 700; 900 ] "what the client's plugin saw"
                  Expect.equal (List.ofSeq atServer.In) [ 500; 700; 900 ] "what the server's plugin saw"
                  Expect.equal server.Context.Counters[Counter.InsidePluginDropped] 1L "counted"
              }

          test "a codec is not used: nothing is asked, and nothing is taken off the MTU" {
              use joined = connected xor
              let client, server = joined.Client, joined.Server
              Expect.isFalse (client.Connection.Hooks.TryRequestEncoding(true, client.Now)) "asked"
              Expect.equal client.Connection.InsideMtu Sizes.MaxPacket "MTU"
              send client (up 600)
              joined.Until "arrives" (fun () -> server.Delivered.Count = 1)
              Expect.equal client.Context.Counters[Counter.CodecPacketsSent] 0L "encoded"
          }

          test "encoding requests and responses end the connection of an end that has a codec" {
              use joined = connected xor
              joined.Say Role.Client (encodingFrame FrameKind.EncodingRequest)
              joined.Until "the server ends" (fun () -> joined.Server.Closed.IsSome)
              Expect.equal joined.Server.Closed (ValueSome TunnelError.InvalidConnectionType) "why"
              use joined = connected xor
              joined.Say Role.Server (encodingFrame FrameKind.EncodingResponse)
              joined.Until "the client ends" (fun () -> joined.Client.Closed.IsSome)
              Expect.equal joined.Client.Closed (ValueSome TunnelError.InvalidConnectionType) "why"
          }

          test "an end without a codec ignores requests" {
              use joined = connected (fun _ -> ConnectionHooks())
              joined.Say Role.Client (encodingFrame FrameKind.EncodingRequest)
              send joined.Client (up 600)
              joined.Until "what follows arrives" (fun () -> joined.Server.Delivered.Count = 1)
              Expect.equal joined.Server.Connection.State ConnectionState.Online "goes on"
          }

          test "encoded packets end the connection, codec or not" {
              for hooks in [ xor; (fun _ -> ConnectionHooks()) ] do
                  use joined = connected hooks
                  let frame: byte[] = Array.zeroCreate 103
                  Frame.writeEncodedData (ReadOnlySpan(Array.zeroCreate<byte> 100), Span frame) |> ignore
                  joined.Say Role.Client frame
                  joined.Until "the server ends" (fun () -> joined.Server.Closed.IsSome)
                  Expect.equal joined.Server.Closed (ValueSome TunnelError.CodecMissing) "why"
          }

          test "a codec that is not used is disposed of with its connection all the same" {
              let mutable disposed = 0

              let codec () =
                  { new IPacketCodec with
                      member _.MaxOverhead = 0
                      member _.Encode(_, _, _) = CodecVerdict.Skipped
                      member _.Decode(_, _, _) = CodecVerdict.Skipped
                    interface IDisposable with
                        member _.Dispose() = disposed <- disposed + 1 }

              let joined = connected (fun _ -> ConnectionHooks(Codec = codec ()))
              (joined :> IDisposable).Dispose()
              Expect.equal disposed 2 "both"
          } ]
