/// The options that look into TLS: the key log, judged by decryption of its own and by tshark, and the lines about records.
module Lightway.Tests.KeyLogTests

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.RegularExpressions
open Expecto
open Lightway.Hosting
open Lightway.Hosting.Start
open Lightway.Lab
open Lightway.Protocol
open Lightway.Tunnel.Tls
open Lightway.Tests.Checks
open Lightway.Tests.OptionRuns

let private withFolder (body: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        body folder.FullName
    finally
        folder.Delete true

/// One end of a DTLS session whose records wait in a queue.
type private End(session: DtlsSession) =
    let records = Queue<byte[]>()

    do
        session.Sink <-
            { new IRecordSink with
                member _.SendRecord(record) = records.Enqueue(record.ToArray()) }

    member _.Session = session
    member _.Records = records

    /// Application data of a datagram.
    member _.Receive(datagram: byte[]) : byte[] =
        let plaintext: byte[] = Array.zeroCreate 2048
        let mutable length = 0
        session.Receive(ReadOnlySpan datagram, Span plaintext, &length) |> ignore
        plaintext[.. length - 1]

/// A client and a server of one program each, after their handshake.
let private connected (clientInsight: TlsInsight | null) (serverInsight: TlsInsight | null) =
    let serverTls =
        TlsContext.ForServer(
            ReadOnlySpan TestCertificate.authority,
            ReadOnlySpan TestCertificate.key,
            false,
            Transport.Datagram,
            serverInsight
        )

    let clientTls =
        TlsContext.ForClient(
            ReadOnlySpan TestCertificate.authority,
            null,
            false,
            KeyShare.X25519MlKem768,
            TlsContext.DefaultOutsideMtu,
            Transport.Datagram,
            clientInsight
        )

    let secret = RandomNumberGenerator.GetBytes 32
    let client = End(new DtlsSession(clientTls, ReadOnlySpan<byte>.Empty))
    let server = End(new DtlsSession(serverTls, ReadOnlySpan secret))
    client.Session.Handshake() |> ignore
    let mutable rounds = 0

    while rounds < 50 && not (client.Session.IsEstablished && server.Session.IsEstablished) do
        for from, towards in [ client, server; server, client ] do
            for _ in 1 .. from.Records.Count do
                towards.Receive(from.Records.Dequeue()) |> ignore

        rounds <- rounds + 1

    Expect.isTrue (client.Session.IsEstablished && server.Session.IsEstablished) "the handshake is complete"
    client.Records.Clear()
    server.Records.Clear()
    client, server

/// HKDF-Expand-Label of DTLS 1.3 with SHA-384 and no context (RFC 8446 §7.1, RFC 9147 §5.9).
let private expand (secret: byte[]) (label: string) (length: int) : byte[] =
    let label = Encoding.ASCII.GetBytes("dtls13" + label)

    let info =
        Array.concat [ [| 0uy; byte length; byte label.Length |]; label; [| 0uy |] ]

    HKDF.Expand(HashAlgorithmName.SHA384, secret, length, info)

/// Content of a record under TLS_AES_256_GCM_SHA384 with a 2-byte sequence number and a length, whose number is below 65536
/// (RFC 9147 §4, §4.2.3; RFC 8446 §5.2).
let private decrypt (secret: byte[]) (record: byte[]) : byte[] =
    Expect.equal (record[0] &&& 0xFCuy) 0x2Cuy "unified header: no connection id, 16-bit number, length"

    let body =
        record[5 .. 4 + int (BinaryPrimitives.ReadUInt16BigEndian(ReadOnlySpan(record, 3, 2)))]

    use aes = Aes.Create()
    aes.Key <- expand secret "sn" 32
    let mask = aes.EncryptEcb(body[..15], PaddingMode.None)
    let header = Array.copy record[..4]
    header[1] <- header[1] ^^^ mask[0]
    header[2] <- header[2] ^^^ mask[1]
    let nonce = expand secret "iv" 12
    nonce[10] <- nonce[10] ^^^ header[1]
    nonce[11] <- nonce[11] ^^^ header[2]
    let plain: byte[] = Array.zeroCreate (body.Length - 16)
    use gcm = new AesGcm(expand secret "key" 32, 16)
    gcm.Decrypt(nonce, body[.. body.Length - 17], body[body.Length - 16 ..], plain, header)
    let last = Array.FindLastIndex(plain, (fun value -> value <> 0uy))
    Expect.equal plain[last] 23uy "application data"
    plain[.. last - 1]

/// The library of the machine may be a build without the callback; that of the target Native has it.
let private needsSecrets () =
    if not KeyLog.IsSupported then
        skiptest "this wolfSSL was built without HAVE_SECRET_CALLBACK"

let private nobody = WarningLog TextWriter.Null

/// Label, client random and secret of each line.
let private lines (file: string) =
    [ for line in File.ReadAllLines file do
          match line.Split ' ' with
          | [| label; random; secret |] -> label, random, secret
          | _ -> failtestf "not a line of a key log: %s" line ]

let private logged =
    testList
        "In memory"
        [ test "DTLS: both ends log the same secrets, and a record can be decrypted with them" {
              needsSecrets ()

              withFolder (fun folder ->
                  let file = Path.Combine(folder, "keys")
                  use clientInsight = TlsLook.Open(file, false, nobody)
                  use serverInsight = TlsLook.Open(file, false, nobody)
                  let client, server = connected clientInsight serverInsight
                  let found = lines file

                  for label in
                      [ "CLIENT_HANDSHAKE_TRAFFIC_SECRET"
                        "SERVER_HANDSHAKE_TRAFFIC_SECRET"
                        "CLIENT_TRAFFIC_SECRET_0"
                        "SERVER_TRAFFIC_SECRET_0" ] do
                      match found |> List.filter (fun (other, _, _) -> other = label) with
                      | [ first; second ] ->
                          Expect.equal second first $"{label}: the two ends have the same"
                          let _, random, secret = first
                          Expect.isTrue (Regex.IsMatch(random, "^[0-9a-f]{64}$")) "32 bytes of the client"
                          Expect.isTrue (Regex.IsMatch(secret, "^[0-9a-f]{96}$")) "48 bytes of SHA-384"
                      | other -> failtestf "%s: %A" label other

                  let secret label =
                      found
                      |> List.pick (fun (other, _, secret) ->
                          if other = label then
                              Some(Convert.FromHexString secret)
                          else
                              None)

                  for from, label in [ client, "CLIENT_TRAFFIC_SECRET_0"; server, "SERVER_TRAFFIC_SECRET_0" ] do
                      let text = Encoding.ASCII.GetBytes $"said by the {label}"
                      Expect.equal (from.Session.Write(ReadOnlySpan text)) TlsStatus.Done "it is sent"
                      Expect.equal (decrypt (secret label) (Seq.last from.Records)) text "what was said")
          }

          test "a new file is its owner's alone, what is there is kept, and a warning says what it is" {
              needsSecrets ()

              withFolder (fun folder ->
                  let file = Path.Combine(folder, "keys")
                  use warnings = new StringWriter()
                  use insight = TlsLook.Open(file, false, WarningLog warnings)
                  Expect.equal (int (File.GetUnixFileMode file)) 0o600 "mode"
                  expectAll (string warnings) [ "warning: keylog: "; file; "decrypt" ]
                  connected insight null |> ignore
                  let first = File.ReadAllText file
                  use second = TlsLook.Open(file, false, nobody)
                  connected second null |> ignore
                  let both = File.ReadAllText file
                  Expect.stringStarts both first "the first session"
                  Expect.isGreaterThan both.Length first.Length "and the second"

                  Expect.isFalse
                      ((string warnings).Contains((lines file |> List.head |> fun (_, _, secret) -> secret)))
                      "no secret in the log")
          }

          test "without the option nothing is looked at" { Expect.isNull (TlsLook.Open(null, false, nobody)) "" }

          test "tls_debug: the records of a handshake are reported, and its end, but no data" {
              let seen = List<string>()
              let insight = new TlsInsight(Records = Action<string> seen.Add)
              let client, _ = connected insight null
              client.Session.Write(ReadOnlySpan "data"B) |> ignore
              let all = List.ofSeq seen
              Expect.stringStarts all.Head "session 1: sent handshake, epoch 0 (" "the ClientHello"
              Expect.exists all _.StartsWith("session 1: received handshake, epoch 0 (") "the answer"

              Expect.exists
                  all
                  _.StartsWith("session 1: received protected record, epoch 2 (mod 4) (")
                  "the server's flight"

              expectAll (List.last all) [ "session 1: established, "; "AES256-GCM" ]
          }

          test "tls_debug: a failure is reported with its reason" {
              let seen = List<string>()

              use serverTls =
                  TlsContext.ForServer(
                      ReadOnlySpan TestCertificate.authority,
                      ReadOnlySpan TestCertificate.key,
                      false,
                      Transport.Stream,
                      new TlsInsight(Records = Action<string> seen.Add)
                  )

              use session = new TlsSession(serverTls)
              let mutable stream = ReadOnlySpan "GET / HTTP/1.1\r\n\r\n"B
              Expect.equal (session.Handshake(&stream)) TlsStatus.Failed "it is not TLS"
              Expect.stringStarts (Seq.last seen) "session 1: failed: " ""
          } ]

let private refusals =
    let refused (prepare: string -> string -> unit) (says: string list) =
        withFolder (fun folder ->
            let file = Path.Combine(folder, "keys")
            prepare folder file

            for attempt in [ (fun () -> TlsLook.Check file); (fun () -> TlsLook.Open(file, false, nobody) |> ignore) ] do
                try
                    attempt ()
                    failtest "it is used"
                with :? ConfigurationException as refused ->
                    expectAll refused.Message ("keylog: " :: says))

    testList
        "Refused files"
        [ test "a file that others may read, with the command that mends it" {
              refused
                  (fun _ file ->
                      File.WriteAllText(file, "")
                      File.SetUnixFileMode(file, enum<UnixFileMode> 0o640))
                  [ "open to others"; "chmod 0600 " ]
          }

          test "a symbolic link" {
              refused
                  (fun folder file ->
                      let target = Path.Combine(folder, "target")
                      File.WriteAllText(target, "kept")
                      File.CreateSymbolicLink(file, target) |> ignore)
                  [ "keys" ]
          }

          test "a directory" { refused (fun _ file -> Directory.CreateDirectory file |> ignore) [ "keys" ] }

          test "a pipe, without waiting for a reader" {
              refused (fun _ file -> Shell.run "mkfifo" [ "-m"; "600"; file ] |> ignore) [ "keys" ]
          }

          test "a file in a directory that does not exist" {
              withFolder (fun folder ->
                  let file = Path.Combine(folder, "none", "keys")

                  for attempt in
                      [ (fun () -> TlsLook.Check file); (fun () -> TlsLook.Open(file, false, nobody) |> ignore) ] do
                      Expect.throwsT<ConfigurationException> attempt "refused")
          }

          test "a check makes no file" {
              needsSecrets ()

              withFolder (fun folder ->
                  TlsLook.Check(Path.Combine(folder, "keys"))
                  Expect.isEmpty (Directory.GetFileSystemEntries folder) "files")
          } ]

let private patience = TimeSpan.FromSeconds 60.
let private marker = "6b65796c6f67206f66206c6967687477" // 16 bytes, the longest pattern of ping(8)

let private endToEnd =
    test "TLS: tshark decrypts a recorded session with the server's key log, and with nothing else" {
        needsRoot ()
        needsSecrets ()

        if not (File.Exists "/usr/bin/tshark" && File.Exists "/usr/bin/dumpcap") then
            skiptest "tshark is not installed"

        use topology = Topology.Create 1
        let keys = Path.Combine(topology.Folder, "keys")
        let capture = Path.Combine(topology.Folder, "capture.pcapng")

        use vpn =
            new Vpn(
                topology,
                Programs.OfThisBuild(),
                { Expresslane = false
                  Offload = true
                  ServerKeys = [ "mode", "tcp"; "keylog", keys ]
                  ClientKeys = [ "mode", "tcp"; "tls_debug", "true" ] }
            )

        let recorder =
            Child.Start
                topology.Client
                "dumpcap"
                "/usr/bin/dumpcap"
                [ "-i"; "any"; "-f"; "tcp port 27690"; "-w"; capture ]
                (Path.Combine(topology.Folder, "dumpcap.log"))

        try
            recorder.Await patience "it records" (fun () -> File.Exists capture)
            vpn.Start()

            Shell.inside topology.Client "ping" [ "-c"; "2"; "-i"; "0.2"; "-s"; "600"; "-p"; marker; Topology.Remote ]
            |> ignore

            let arguments =
                [ "-r"; capture; "-d"; "tcp.port==27690,tls"; "-q"; "-z"; "follow,tls,raw,0" ]

            let joined (output: string) =
                output.Replace("\n", "").Replace("\t", "")

            let followed (options: string list) : string =
                joined (Shell.run "tshark" (arguments @ options))

            let withKeys = [ "-o"; $"tls.keylog_file:{keys}" ]

            // What dumpcap has not written yet, it may lose when it is ended. Meanwhile its last packet may be cut off, which
            // tshark calls an error.
            recorder.Await patience "it has recorded the pings" (fun () ->
                let struct (_, output, _) = Shell.tryRun "tshark" (arguments @ withKeys)
                (joined output).Contains(marker + marker))

            recorder.Signal Netns.Signal.Interrupt
            Expect.isTrue (recorder.WaitForExit patience) "the recording has ended"
            let found = followed withKeys
            Expect.stringContains found (marker + marker) "the ping's content, in the clear"
            Expect.isFalse ((followed []).Contains marker) "without the key log it is not there"

            vpn.Server.AwaitLog "keylog: the TLS secrets of every connection are written to" "the warning"

            for line in [ "tls_debug: session 1: sent handshake ("; "tls_debug: session 1: established, " ] do
                vpn.Client.AwaitLog line "the records"

            let _, _, secret = (lines keys).Head
            Expect.isFalse (vpn.Server.Log.Contains secret) "no secret in the log"
        finally
            (recorder :> IDisposable).Dispose()
    }

let tests: Test = testList "Looking into TLS" [ logged; refusals; endToEnd ]
