/// The server's tables against clients that restart, vanish, or say what they should not. Needs root.
module Lightway.Tests.ServerTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Tests.Checks

let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = []
      ClientKeys = [] }

let private withSettings settings (body: Topology -> Vpn -> unit) =
    needsRoot ()

    use topology = Topology.Create()
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    vpn.StartServer()
    body topology vpn

let private withServer = withSettings settings

let private counter (vpn: Vpn) name = vpn.Read().Counters[name]

/// Sends datagrams from a port of the client's namespace and counts the answers: waits until `expected` have come, then for half
/// a second without another one.
let private answers (topology: Topology) (port: int) (expected: int) (datagrams: byte[] list) =
    Netns.run topology.Client (fun () ->
        use socket =
            new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

        socket.Bind(IPEndPoint(IPAddress.Any, port))

        for datagram in datagrams do
            socket.SendTo(datagram, IPEndPoint(IPAddress.Parse Topology.ServerOutside, 27690)) |> ignore

        let buffer: byte[] = Array.zeroCreate 2048
        let mutable count = 0

        let hasMore () =
            let wait = if count < expected then 30_000. else 500.
            socket.Poll(TimeSpan.FromMilliseconds wait, SelectMode.SelectRead)

        while hasMore () do
            socket.Receive(buffer) |> ignore
            count <- count + 1

        count)

let private header (session: SessionId) =
    let bytes = Array.zeroCreate WireHeader.Size
    WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, session, Span bytes)
    bytes

let tests =
    testSequenced (
        testList
            "Server"
            [ test "a client that starts again from the same port is served, and takes its old session's place" {
                  withServer (fun topology vpn ->
                      for attempt in 1..3 do
                          use client = new RawClient(topology.Client, 40000, vpn)
                          Expect.isTrue (client.Connect()) $"attempt {attempt}: online"

                      Expect.equal (counter vpn "conn_online") 3L "three logins"
                      Expect.equal (counter vpn "conn_closed") 2L "two sessions replaced")
              }

              test "workers are bound to processors, and the threads that check passwords are not" {
                  if Environment.ProcessorCount < 2 then
                      skiptest "needs two processors"

                  let bound = [ "workers", "2"; "pin_workers", "true" ]

                  withSettings { settings with ServerKeys = bound } (fun topology vpn ->
                      use client = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (client.Connect()) "a password was checked"

                      /// Of a thread that has ended meanwhile: nothing.
                      let linesOf (task: string) =
                          try
                              File.ReadAllLines(Path.Combine(task, "status"))
                          with :? IOException ->
                              [||]

                      let threads =
                          [ for status in
                                Directory.GetDirectories $"/proc/{vpn.Server.Pid}/task"
                                |> Array.map linesOf
                                |> Array.filter (Array.isEmpty >> not) do
                                let value (key: string) =
                                    (status |> Array.find (fun line -> line.StartsWith(key + ":"))).Split('\t')[1]

                                value "Name", value "Cpus_allowed_list" ]

                      let pool = threads |> List.filter (fun (name, _) -> name.StartsWith ".NET TP W")
                      let isSingle (list: string) = list |> Seq.forall Char.IsDigit
                      Expect.isNonEmpty pool "threads of the pool"
                      Expect.all pool (snd >> isSingle >> not) $"free: %A{threads}"
                      let single = threads |> List.filter (snd >> isSingle)
                      Expect.equal single.Length 2 $"two workers: %A{threads}")
              }

              test "the report counts the sessions of all workers as they are, not as they were at the report before" {
                  let quick = [ "workers", "2"; "statistics_reporting_interval", "12s" ]

                  withSettings { settings with ServerKeys = quick } (fun topology vpn ->
                      let clients =
                          [ for port in 40000..40007 -> new RawClient(topology.Client, port, vpn) ]

                      for client in clients do
                          Expect.isTrue (client.Connect()) "online"

                      let reports () =
                          vpn.Server.Log.Split('\n') |> Array.filter (fun line -> line.Contains "pending rotations")

                      Expect.isEmpty (reports ()) "all are there before the first report"
                      vpn.Server.Await (TimeSpan.FromSeconds 60.) "it reports" (fun () -> reports().Length > 0)
                      Expect.stringContains (reports ()).[0] "8 online, 8 connections" "all of them"

                      for client in clients do
                          (client :> IDisposable).Dispose())
              }

              test "a client that vanished in its handshake does not block its port" {
                  withServer (fun topology vpn ->
                      use first = new RawClient(topology.Client, 40000, vpn)
                      first.Connection.Start Environment.TickCount64
                      let created () = counter vpn "conn_created" = 1L
                      Expect.isTrue (first.RunUntil(TimeSpan.FromSeconds 30., created)) "its handshake began"
                      (first :> IDisposable).Dispose()
                      use second = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (second.Connect()) "online")
              }

              test "a client that moves to the address of another session keeps its own" {
                  withServer (fun topology vpn ->
                      use gone = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (gone.Connect()) "the session that will hold the address"
                      (gone :> IDisposable).Dispose()
                      use first = new RawClient(topology.Client, 40001, vpn)
                      Expect.isTrue (first.Connect()) "another one"
                      let session = first.Connection.SessionId
                      first.Rebind 40000
                      first.Connection.NetworkChanged Environment.TickCount64
                      let adopted () = first.Connection.SessionId <> session
                      Expect.isTrue (first.RunUntil(TimeSpan.FromSeconds 30., adopted)) "its session id was rotated"
                      Expect.equal (counter vpn "udp_conn_recovered_via_session") 1L "followed")
              }

              test "a client that goes on with another address of the server is answered from there" {
                  let wildcard =
                      { settings with
                          ServerKeys = settings.ServerKeys @ [ "bind_address", "0.0.0.0:27690" ] }

                  withSettings wildcard (fun topology vpn ->
                      Shell.ip $"-n {topology.Server} addr add 192.0.2.9/24 dev outside" |> ignore
                      use client = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (client.Connect()) "online"
                      Expect.equal client.AnsweredBy Topology.ServerOutside "from where it wrote to"
                      client.WriteTo "192.0.2.9"

                      let answered () =
                          client.Connection.NetworkChanged Environment.TickCount64 // a ping
                          client.AnsweredBy = "192.0.2.9"

                      Expect.isTrue (client.RunUntil(TimeSpan.FromSeconds 30., answered)) "from the other"
                      Expect.equal (counter vpn "conn_created") 1L "the same connection")
              }

              test "a rejected session is never answered with a reject, an unknown one is, at a limited rate" {
                  withServer (fun topology vpn ->
                      let rejected = [ for _ in 1..10 -> header SessionId.Rejected ]
                      Expect.equal (answers topology 40002 0 rejected) 0 "no loop"
                      Expect.equal (answers topology 40003 1 [ header (SessionId 7UL) ]) 1 "told"

                      let isOver name least =
                          Wait.until (TimeSpan.FromSeconds 5.) (fun () -> counter vpn name > least)

                      // The limit for all is one of a tick, which may begin among the datagrams: then they are sent again.
                      let rec areSuppressed attempts =
                          let told =
                              answers topology 40004 1 [ for i in 1UL .. 1000UL -> header (SessionId i) ]

                          Expect.isLessThan told 400 "limited"
                          isOver "udp_rejects_suppressed" 0L || (attempts > 1 && areSuppressed (attempts - 1))

                      Expect.isTrue (areSuppressed 8) "by a limit for all"
                      Expect.isTrue (isOver "udp_stranger_over_limit" 500L) "and by one for the source")
              }

              test "a flood of ClientHellos without cookie makes no connection" {
                  withServer (fun topology vpn ->
                      use pair = new Pair(true, 1)
                      pair.StartClient()
                      let hello = pair.Client.Wire.Datagrams.Peek()

                      let told = answers topology 40006 101 [ for _ in 1..500 -> hello ]
                      Expect.isGreaterThan told 100 "each is answered by a cookie request"
                      Expect.equal (counter vpn "conn_created") 0L "nothing is kept")
              }

              test "a file with every key of the reference server starts, and no key is without effect" {
                  withServer (fun _ vpn ->
                      let everything =
                          [ "server_cert", Path.Combine(vpn.Folder, "server.crt")
                            "server_key", Path.Combine(vpn.Folder, "server.key")
                            "user_db", Path.Combine(vpn.Folder, "users.htpasswd")
                            "mode", "udp"
                            "bind_address", "\"127.0.0.1:27699\""
                            "token_rsa_pub_key_pem", Path.Combine(vpn.Folder, "token.pem")
                            "tun_name", "everything"
                            "tun_ip", "10.125.0.2"
                            "ip_pool", "10.125.0.0/16"
                            "ip_map", Path.Combine(vpn.Folder, "map.yaml")
                            "lightway_client_ip", "10.125.0.5"
                            "lightway_server_ip", "10.125.0.6"
                            "lightway_dns_ip", "10.125.0.1"
                            "enable_expresslane", "true"
                            "expresslane_keys_rotation_interval", "15m"
                            "key_update_interval", "15m"
                            "enable_pqc", "true"
                            "connection_age_expiration_interval", "1m"
                            "statistics_reporting_interval", "30s"
                            "proxy_protocol", "false"
                            "udp_buffer_size", "15 MiB"
                            "enable_batch_receive", "true"
                            "enable_batch_send", "false"
                            "enable_tun_offload", "true"
                            "enable_tun_iouring", "true"
                            "iouring_entry_count", "1024"
                            "iouring_sqpoll_idle_time", "100ms"
                            "log_format", "full"
                            "log_level", "info"
                            "accept_unknowns", "false"
                            "tls_debug", "false"
                            "randomize_ippool", "true" ]

                      vpn.Server.Stop() |> ignore
                      File.WriteAllText(Path.Combine(vpn.Folder, "map.yaml"), "127.0.0.1: 10.125.64.0/24\n")

                      File.WriteAllText(
                          Path.Combine(vpn.Folder, "token.pem"),
                          (Jwt.a ()).ExportSubjectPublicKeyInfoPem()
                      )

                      File.WriteAllLines(
                          Path.Combine(vpn.Folder, "server.yaml"),
                          [ for key, value in everything -> $"{key}: {value}" ]
                      )

                      vpn.LaunchServer()
                      let serves () = vpn.Server.Log.Contains "serving "
                      vpn.Server.Await (TimeSpan.FromSeconds 60.) "it serves" serves

                      Expect.isFalse (vpn.Server.Log.Contains "no effect") "warnings"
                      vpn.Server.AwaitLog "enable_tun_iouring: " "how it is met")
              } ]
    )
