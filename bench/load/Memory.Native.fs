/// What one idle client of a server takes: the server's end of a connection, made in this process, without sockets or tables.
[<RequireQualifiedAccess>]
module Lightway.Bench.Load.Memory

open System
open System.IO
open System.Net
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Text
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

#nowarn "9" // the struct of mallinfo2(3)

[<Struct; StructLayout(LayoutKind.Sequential)>]
type private MallInfo =
    val mutable Arena: unativeint
    val mutable FreeChunks: unativeint
    val mutable FastBins: unativeint
    val mutable Mapped: unativeint
    val mutable MappedBytes: unativeint
    val mutable Unused: unativeint
    val mutable FastBinBytes: unativeint
    val mutable UsedBytes: unativeint
    val mutable FreeBytes: unativeint
    val mutable Releasable: unativeint

module private Libc =
    [<DllImport("libc")>]
    extern MallInfo mallinfo2()

/// Bytes that malloc has given out: those of all arenas are not summed by glibc, so all is done on one thread.
let private nativeBytes () =
    let info = Libc.mallinfo2 ()
    float (info.UsedBytes + info.MappedBytes)

/// Bytes of one idle client.
type Share =
    {
        /// Objects of .NET.
        Managed: float
        /// malloc, without the TLS session.
        Native: float
        /// The TLS session: all that the connection without Expresslane takes of malloc.
        Session: float
    }

    /// Without the TLS session's own.
    member this.Own: float = this.Managed + this.Native

let private certificate () =
    use key = ECDsa.Create ECCurve.NamedCurves.nistP256

    let request =
        CertificateRequest("CN=lightway-memory", key, HashAlgorithmName.SHA256)

    request.CertificateExtensions.Add(X509BasicConstraintsExtension(true, false, 0, true))

    use own =
        request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays -1., DateTimeOffset.UtcNow.AddDays 1.)

    Encoding.ASCII.GetBytes(own.ExportCertificatePem()), Encoding.ASCII.GetBytes(key.ExportPkcs8PrivateKeyPem())

/// Bytes of .NET and of malloc per connection that has logged in, handshakes on this thread.
let private ofConnections (count: int) (expresslane: bool) : struct (float * float) =
    let certificate, key = certificate ()
    use server = new End(Role.Server, 64)
    use serverTls = TlsContext.ForServer(certificate, key, false)

    use clientTls =
        TlsContext.ForClient(certificate, null, false, KeyShare.X25519MlKem768, TlsContext.DefaultOutsideMtu)

    use listener = new DtlsListener(serverTls, server.Context, server.Now)

    let at =
        OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, 27690)), LocalAddress())

    let connections: Connection[] = Array.zeroCreate count

    let settings role =
        ConnectionSettings(
            Role = role,
            EnableExpresslane = expresslane,
            Credentials = AuthRequest.userPassword ("me", "secret"B)
        )

    let serverSettings = settings Role.Server
    use client = new End(Role.Client, 64)

    let connect (number: int) =
        let from =
            OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, 1 + number)), LocalAddress())

        client.Connection <-
            Connection.ForClient(
                settings Role.Client,
                client.Context,
                client,
                new DtlsSession(clientTls, ReadOnlySpan<byte>.Empty),
                &at,
                client.Now
            )

        client.Connection.Start client.Now

        let toServer (datagram: byte[]) =
            let mutable header = Unchecked.defaultof<WireHeader>
            WireHeader.tryParse (ReadOnlySpan datagram, &header) |> ignore

            let body =
                ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size)

            if not (isNull connections[number]) then
                connections[number].Receive(&header, body, server.Now) |> ignore
            else
                match listener.TryAccept(header.Version, &from, body, server.Now) with
                | null -> ()
                | session ->
                    connections[number] <-
                        Connection.ForServer(
                            serverSettings,
                            server.Context,
                            server,
                            header.Version,
                            server.Context.Ids.Draw(),
                            session,
                            &from,
                            UInt128.Zero,
                            server.Now
                        )

                    connections[number].Start server.Now

        while client.Wire.Datagrams.Count > 0 || server.Wire.Datagrams.Count > 0 do
            for _ in 1 .. client.Wire.Datagrams.Count do
                toServer (client.Wire.Datagrams.Dequeue())

            for _ in 1 .. server.Wire.Datagrams.Count do
                let datagram = server.Wire.Datagrams.Dequeue()
                let mutable header = Unchecked.defaultof<WireHeader>
                WireHeader.tryParse (ReadOnlySpan datagram, &header) |> ignore

                let body =
                    ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size)

                client.Connection.Receive(&header, body, client.Now) |> ignore

        if
            connections[number].State <> ConnectionState.Online
            || connections[number].IsExpresslaneReady <> expresslane
        then
            raise (LabException $"connection {number} is {connections[number].State}")

        client.Connection.Dispose()
        client.Connection <- null
        server.Wire.SegmentSizes.Clear()
        client.Wire.SegmentSizes.Clear()
        server.Wire.Tos.Clear()
        client.Wire.Tos.Clear()
        server.Wire.Fragmentable.Clear()
        client.Wire.Fragmentable.Clear()

    let first = 20

    for number in 0 .. first - 1 do
        connect number

    let managed = GC.GetTotalMemory true
    let native = nativeBytes ()

    for number in first .. count - 1 do
        connect number

    let made = float (count - first)

    let result =
        struct (float (GC.GetTotalMemory true - managed) / made, (nativeBytes () - native) / made)

    for connection in connections do
        connection.Dispose()

    result

/// Of as many connections.
let measure (count: int) : Share =
    ofConnections 60 true |> ignore // what the libraries keep for good
    let struct (_, session) = ofConnections count false
    let struct (managed, native) = ofConnections count true

    { Managed = managed
      Native = native - session
      Session = session }
