/// What Prometheus and load balancers get by HTTP: names, text format, health, and what a client of it may cost.
module Lightway.Tests.MetricsTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Http
open System.Net.Sockets
open System.Text
open System.Text.Json
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Lab
open Lightway.Server.Addresses
open Lightway.Server.Control
open Lightway.Server.Observe
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Tun
open Lightway.Tunnel.Workers
open Lightway.Tests.Checks
open Microsoft.Extensions.Logging.Abstractions

/// Skips the test when a program is missing; in CI that counts as a failure.
let needsProgram (name: string) (package: string) : string =
    let found =
        $"""{Environment.GetEnvironmentVariable "PATH"}:/usr/sbin:/sbin""".Split ':'
        |> Array.map (fun folder -> Path.Combine(folder, name))
        |> Array.tryFind File.Exists

    match found with
    | Some path -> path
    | None -> skiptest $"{name} is not installed (Debian: {package})"

/// A server without workers.
let private viewOf (state: ServingState) : ServerView =
    ServerView([||], [||], [| Counters() |], AddressPool(IPNetwork.Parse "10.125.0.0/16", [||], false), state)

/// The metrics of a server that does nothing.
let idleMetrics: Lazy<string> =
    lazy
        (let registry = MetricsRegistry(viewOf (ServingState(Draining())))

         use output = new MemoryStream()
         registry.WriteAsync(output, CancellationToken.None).GetAwaiter().GetResult()
         Encoding.UTF8.GetString(output.ToArray()))

/// Name and kind of each metric of a page.
let families (page: string) : (string * string) list =
    [ for line in Regex.Matches(page, @"^# TYPE (\S+) (\S+)$", RegexOptions.Multiline) do
          line.Groups[1].Value, line.Groups[2].Value ]

/// The value of a series, as the page writes it: `name` or `name{label="value"}`.
let valueOf (page: string) (series: string) : float =
    match Regex.Match(page, $@"^{Regex.Escape series} (\S+)$", RegexOptions.Multiline) with
    | found when found.Success -> Double.Parse(found.Groups[1].Value, Globalization.CultureInfo.InvariantCulture)
    | _ -> failtestf "no %s" series

/// The table of the reference server's metrics, written out independently.
let private reference =
    [ "conn_accept_failed connection_accept_proxy_header_failed conn_create_failed conn_created conn_link_up conn_online"
      "conn_rejected_no_free_ip conn_rejected_access_denied conn_data_after_disconnect conn_tls_error conn_unknown_error"
      "conn_aged_out user_auth_eviction conn_closed conn_client_closed conn_stale_closed key_update_start"
      "key_update_complete udp_conn_recovered_via_session udp_bad_packet_version udp_rejected_session"
      "udp_parse_wire_failed udp_no_header udp_session_rotation_begin udp_session_rotation_finalized"
      "udp_session_rotation_attempted_via_replay udp_recv_truncated udp_recv_invalid_addr udp_recv_missing_pktinfo"
      "udp_send_batch_dropped udp_send_batch_blocked udp_send_batch_missed_flush tun_rejected_packet_invalid_state"
      "tun_rejected_packet_invalid_inside_packet tun_rejected_packet_invalid_other tun_rejected_packet_no_connection"
      "tun_rejected_packet_no_client_ip tun_from_client tun_to_client expresslane_offload_tx_bytes"
      "expresslane_offload_rx_bytes tun_iouring_rx_err tun_recv_gso_short_read conn_alloc_frag_map tls_appdata"
      "inside_io_send_failed session_id_mismatch received_encoding_req_no_authorization"
      "received_encoding_req_non_online received_encoding_req_with_tcp received_encoding_res_as_server"
      "expresslane_encrypt_no_key expresslane_decrypt_no_key expresslane_decrypt_failed gso_dropped_invalid_hdr_len"
      "gso_dropped_zero_gso_size gso_dropped_oversized_segment gso_send_failed gso_build_segment_failed"
      "gso_none_checksum_skipped gso_batch_skipped udp_send_batch_size tun_recv_batch_size to_link_up_time"
      "to_online_time sessions_current_online sessions_lifetime_total sessions_pending_id_rotations sessions_active_5m"
      "sessions_active_15m sessions_active_60m sessions_standby_5m sessions_standby_15m sessions_standby_60m"
      "sessions_encoding_enabled assigned_internal_ips" ]
    |> List.collect (fun line -> List.ofArray (line.Split ' '))

let private promtool (arguments: string list) (input: string) : struct (int * string) =
    let info =
        ProcessStartInfo(
            needsProgram "promtool" "prometheus",
            arguments,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    use running = Process.Start info
    let errors = running.StandardError.ReadToEndAsync()
    let output = running.StandardOutput.ReadToEndAsync()
    running.StandardInput.Write input
    running.StandardInput.Close()
    running.WaitForExit()
    struct (running.ExitCode, output.Result + errors.Result)

let private expectClean (page: string) =
    let struct (code, said) = promtool [ "check"; "metrics" ] page
    Expect.equal (code, said) (0, "") "promtool check metrics"

let private names =
    testList
        "names"
        [ test "every counter has a line of help" {
              Expect.isEmpty
                  (Enum.GetValues<Counter>() |> Array.filter (CounterHelp.Has >> not))
                  "add these to CounterHelp"
          }

          test "every metric of the reference server is there; counters have _total behind the name" {
              let present = Set(families idleMetrics.Value |> List.map fst)
              Expect.equal reference.Length 76 "the table is complete"

              let isThere name =
                  present.Contains name || present.Contains(name + "_total")

              Expect.isEmpty (reference |> List.filter (isThere >> not)) "missing"
          }

          test "every counter ends with _total, and nothing else does" {
              for name, kind in families idleMetrics.Value do
                  if not (name.StartsWith "dotnet_" || name.StartsWith "process_") then
                      Expect.equal (name.EndsWith "_total") (kind = "counter") name
          }

          test "each drop has its reason in drops_total from the start, with the counters' names" {
              for reason in [ "udp_parse_wire_failed"; "ecn_dropped"; "gso_dropped_invalid_hdr_len_fragment" ] do
                  Expect.equal (valueOf idleMetrics.Value $"drops_total{{reason=\"{reason}\"}}") 0. reason
          }

          test "promtool has nothing to say about the metrics" { expectClean idleMetrics.Value }

          test "promtool would say it: a counter without _total, a metric without help" {
              let struct (code, said) = promtool [ "check"; "metrics" ] "# TYPE a counter\na 1\n"
              Expect.equal code 3 "lint"
              Expect.stringContains said "_total" "which"
          } ]

let private histograms =
    let values =
        Gen.choose (0, 3000) |> Gen.map int64 |> Gen.listOf |> Gen.listOf |> Gen.resize 40

    testList
        "histograms"
        [ testPropertyWithConfig
              { FsCheckConfig.defaultConfig with
                  maxTest = 300 }
              "what is passed on has the counts of the ranges and the sum of the values"
          <| Prop.forAll (Arb.fromGen values) (fun rounds ->
              let sources = [| Histogram.OfPowers 1024; Histogram.OfPowers 1024 |]
              let bounds = sources[0].Bounds
              let feed = HistogramFeed bounds
              let counts = Array.create (bounds.Count + 1) 0L
              let mutable sum = 0L

              let rangeOf value =
                  bounds |> Seq.filter (fun bound -> value > bound) |> Seq.length

              for round in rounds do
                  for index, value in List.indexed round do
                      sources[index % 2].Observe value

                  feed.Update(
                      sources,
                      fun value count ->
                          counts[rangeOf value] <- counts[rangeOf value] + count
                          sum <- sum + value * count
                  )

              let all = List.concat rounds

              let expected =
                  Array.init counts.Length (fun range ->
                      all |> List.filter (fun value -> rangeOf value = range) |> List.length |> int64)

              counts = expected && sum = List.sum all)

          test "ranges include their upper bound" {
              let histogram = Histogram.OfPowers 64
              Expect.equal (List.ofSeq histogram.Bounds) [ 1L; 2L; 4L; 8L; 16L; 32L; 64L ] "bounds"

              for value in [ 1L; 2L; 3L; 64L; 65L ] do
                  histogram.Observe value

              Expect.equal
                  (List.init 8 histogram.Read)
                  [ struct (1L, 1L)
                    struct (1L, 2L)
                    struct (1L, 3L)
                    struct (0L, 0L)
                    struct (0L, 0L)
                    struct (0L, 0L)
                    struct (1L, 64L)
                    struct (1L, 65L) ]
                  "counts and sums"
          }

          test "a count and its sum are of the same values while a thread observes" {
              let histogram = Histogram.OfPowers 64
              use stop = new CancellationTokenSource()

              let writer =
                  Task.Run(fun () ->
                      while not stop.IsCancellationRequested do
                          histogram.Observe 65)

              let mutable readings = 0
              let mutable observed = 0L
              let mutable wrong = 0

              while readings < 1_000_000 || observed < 100_000L do
                  let struct (count, sum) = histogram.Read 7
                  readings <- readings + 1
                  observed <- count
                  wrong <- wrong + (if sum = 65L * count then 0 else 1)

              stop.Cancel()
              writer.Wait()
              Expect.equal wrong 0 "each sum is that of its count"
          } ]

/// A server with metrics at port 9100 of its namespace's loopback, and one client.
let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = [ "metrics_address", "9100"; "statistics_reporting_interval", "1s" ]
      ClientKeys = [] }

let private withServer clients settings (body: Topology -> Vpn -> unit) =
    needsRoot ()
    use topology = Topology.Create(clients: int)
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn

let private patience = TimeSpan.FromSeconds 30.

/// Sends bytes, and returns what comes until the end; a server that has not read all of them may end with a reset.
let private raw (port: int) (request: string) : string =
    use socket =
        new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp, ReceiveTimeout = 30_000)

    socket.Connect(IPAddress.Loopback, port)
    socket.Send(Encoding.ASCII.GetBytes request) |> ignore
    let buffer: byte[] = Array.zeroCreate 65536
    let answer = StringBuilder()

    let receive () =
        try
            socket.Receive buffer
        with :? SocketException as error when error.SocketErrorCode = SocketError.ConnectionReset ->
            0

    let mutable count = receive ()

    while count > 0 do
        answer.Append(Encoding.ASCII.GetString(buffer, 0, count)) |> ignore
        count <- receive ()

    answer.ToString()

/// A port that nobody has at the moment.
let private freePort () : int =
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    (listener.LocalEndpoint :?> IPEndPoint).Port

/// Serves on a free port, which somebody else may take before it is bound: then on another one.
let rec private serve (attempts: int) (view: ServerView) : struct (IDisposable * int) =
    let port = freePort ()

    try
        struct (MetricsEndpoint.Start(IPEndPoint(IPAddress.Loopback, port), view), port)
    with :? IOException when attempts > 1 ->
        serve (attempts - 1) view

let private readiness =
    test "a server is ready while it serves, and neither before, nor while it is drained, nor after" {
        let draining = Draining()
        let state = ServingState draining
        let struct (endpoint, port) = serve 10 (viewOf state)
        use _ = endpoint
        use client = new HttpClient(BaseAddress = Uri $"http://127.0.0.1:{port}")

        let expect code (text: string) (ready: float) (draining: float) =
            let answer = client.GetAsync("/readyz").Result
            Expect.equal (int answer.StatusCode, answer.Content.ReadAsStringAsync().Result) (code, text) "readyz"
            let page = client.GetStringAsync("/metrics").Result
            Expect.equal (valueOf page "ready", valueOf page "draining") (ready, draining) "metrics"
            Expect.equal (client.GetStringAsync("/healthz").Result) "ok\n" "it is alive all the time"

        expect 503 "not serving\n" 0. 0.
        state.IsServing <- true
        expect 200 "ready\n" 1. 0.
        state.IsServing <- false
        expect 503 "not serving\n" 0. 0.
        state.IsServing <- true
        draining.Begin Int64.MaxValue
        expect 503 "draining\n" 0. 1.
    }

/// A worker that nobody runs, with a queue of a device in a namespace of its own.
let private withWorker (body: Worker -> unit) =
    needsRoot ()
    let netns = $"lw-health-{Environment.ProcessId}"
    Shell.run "ip" [ "netns"; "add"; netns ] |> ignore

    try
        let opened = ref null

        Netns.run netns (fun () ->
            opened.Value <- TunQueue.OpenAll("lwhealth", Offload.None, 1)[0]
            TunInterface.BringUp opened.Value.Name)

        let program =
            { new IWorkerProgram with
                member _.Find _ = null
                member _.IsReported _ = false
                member _.Dispatch(_, _, _, _) = ()
                member _.Tick _ = ()
                member _.Stopping() = () }

        use worker =
            new Worker(opened.Value, null, null, Offload.None, null, NullLogger.Instance, (fun _ -> program))

        body worker
    finally
        Shell.run "ip" [ "netns"; "delete"; netns ] |> ignore

let private health =
    test "a server is healthy until one of its workers has done nothing for ten seconds, and again after that" {
        withWorker (fun worker ->
            let state = ServingState(Draining())

            let view =
                ServerView([| worker |], [||], [||], AddressPool(IPNetwork.Parse "10.125.0.0/16", [||], false), state)

            let struct (endpoint, port) = serve 10 view
            use _ = endpoint
            use client = new HttpClient(BaseAddress = Uri $"http://127.0.0.1:{port}")

            let ask () =
                let answer = client.GetAsync("/healthz").Result
                int answer.StatusCode, answer.Content.ReadAsStringAsync().Result

            let expect code (text: string) =
                Expect.equal (ask ()) (code, text) "healthz"

            let isSilentFor (ms: int64) =
                worker.Context.Now <- Environment.TickCount64 - ms

            isSilentFor 11_000L
            expect 200 "ok\n" // it does not serve yet
            state.IsServing <- true
            expect 503 "worker 0 has done nothing for 10 seconds\n"

            // The question may take a while on a busy machine.
            let isHealthy () =
                isSilentFor 5_000L
                ask () = (200, "ok\n")

            Expect.isTrue (Wait.until patience isHealthy) "healthz after five seconds")
    }

let private http =
    testSequenced (
        testList
            "by HTTP"
            [ readiness
              health

              test "metrics, health and readiness; only GET and HEAD; limits of a request" {
                  withServer 1 settings (fun topology vpn ->
                      vpn.Start()
                      use forward = new Forward(topology.Server, 9100)
                      use client = new HttpClient(BaseAddress = Uri forward.Url)
                      let get (path: string) = client.GetAsync(path).Result

                      let text (answer: HttpResponseMessage) =
                          answer.Content.ReadAsStringAsync().Result

                      Expect.equal (text (get "/healthz")) "ok\n" "alive"
                      Expect.equal (text (get "/readyz")) "ready\n" "ready"

                      // Workers count their sessions once per second.
                      vpn.Server.Await patience "the client is counted" (fun () ->
                          valueOf (text (get "/metrics")) "sessions_current_online" > 0.)

                      let page = text (get "/metrics")
                      expectClean page
                      Expect.equal (valueOf page "sessions_current_online") 1. "one client"
                      Expect.equal (valueOf page "sessions_lifetime_total") 1. "since start"
                      Expect.equal (valueOf page "assigned_internal_ips") 1. "its address"

                      Expect.equal
                          (valueOf page "conn_created_total{lightway_protocol_version=\"1.3\"}")
                          1.
                          "its version"

                      Expect.equal (valueOf page "to_online_time_count") 1. "its login"
                      Expect.isGreaterThan (valueOf page "to_online_time_sum") 0. "took time"

                      Expect.isGreaterThan
                          (valueOf page "worker_busy_seconds_total{worker=\"0\"}")
                          0.
                          "a worker worked"

                      Expect.isTrue
                          (Regex.IsMatch(
                              page,
                              @"(?m)^conn_online_total\{cipher=""[A-Z0-9_-]+"",curve=""[A-Za-z0-9_-]+"",tls_protocol_version=""DTLSv1.3""\} 1$"
                          ))
                          "suite and group"

                      let head = client.Send(new HttpRequestMessage(HttpMethod.Head, "/metrics"))
                      Expect.equal (int head.StatusCode, text head) (200, "") "HEAD has no body"
                      let post = client.PostAsync("/metrics", new StringContent "x").Result
                      Expect.equal (int post.StatusCode) 405 "POST"
                      Expect.equal (int (get "/secret").StatusCode) 404 "elsewhere"

                      Expect.stringStarts
                          (raw forward.Port $"GET /{String('a', 5000)} HTTP/1.1\r\n\r\n")
                          "HTTP/1.1 414"
                          "a long line"

                      let header = String.replicate 20 $"X: {String('a', 900)}\r\n"

                      Expect.stringStarts
                          (raw forward.Port $"GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n")
                          "HTTP/1.1 431"
                          "many headers"

                      let clock = Stopwatch.StartNew()
                      raw forward.Port "GET / HTTP/1.1\r\nHost: a" |> ignore

                      Expect.isLessThan
                          clock.Elapsed.TotalSeconds
                          20.
                          "a client that is slow with its headers is cut off"

                      Expect.isTrue (vpn.Server.Stop()) "an orderly end"
                      Expect.isFalse (vpn.Server.Log.Contains "Microsoft.") "the web server has no lines in the log"
                      Expect.isFalse (vpn.Server.Log.Contains "metrics_address") "no warning: it is loopback")
              }

              test "without metrics_address nothing of the web server is loaded; with it, it is" {
                  for keys, isLoaded in [ [], false; [ "metrics_address", "9100" ], true ] do
                      withServer 1 { settings with ServerKeys = keys } (fun _ vpn ->
                          vpn.StartServer()
                          let maps = File.ReadAllText $"/proc/{vpn.Server.Pid}/maps"

                          Expect.equal
                              (Regex.IsMatch(maps, @"/Microsoft\.AspNetCore\.[^/\n]*\.dll"))
                              isLoaded
                              "assemblies of ASP.NET")
              }

              test "an address that others reach is served with a warning" {
                  withServer
                      1
                      { settings with
                          ServerKeys = [ "metrics_address", "\"192.0.2.1:9100\"" ] }
                      (fun topology vpn ->
                          vpn.StartServer()
                          vpn.Server.AwaitLog "metrics_address: whoever reaches 192.0.2.1:9100" "the warning"

                          let answer =
                              Netns.run topology.Client (fun () ->
                                  use socket = new TcpClient()
                                  socket.Connect("192.0.2.1", 9100)
                                  use stream = socket.GetStream()
                                  stream.Write(ReadOnlySpan(Encoding.ASCII.GetBytes "GET /healthz HTTP/1.0\r\n\r\n"))
                                  (new StreamReader(stream)).ReadToEnd())

                          Expect.stringEnds answer "ok\n" "served")
              }

              test "an address that is taken ends the server with a line that names the option" {
                  withServer 1 settings (fun topology vpn ->
                      use taken =
                          Netns.run topology.Server (fun () ->
                              let listener = new TcpListener(IPAddress.Loopback, 9100)
                              listener.Start()
                              listener)

                      vpn.LaunchServer()
                      Expect.isTrue (vpn.Server.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
                      Expect.equal vpn.Server.ExitCode 1 "exit code"
                      vpn.Server.AwaitLog "metrics_address: " "which option")
              } ]
    )

let private prometheus =
    test "a Prometheus server scrapes while eight clients download, and its numbers are right" {
        needsRoot ()
        let program = needsProgram "prometheus" "prometheus"

        withServer 8 settings (fun topology vpn ->
            vpn.Start()
            let config = Path.Combine(topology.Folder, "prometheus.yml")

            File.WriteAllText(
                config,
                "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: lightway\n    static_configs:\n      - targets: ['127.0.0.1:9100']\n"
            )

            use running =
                Child.Start
                    topology.Server
                    "prometheus"
                    program
                    [ $"--config.file={config}"
                      $"""--storage.tsdb.path={Path.Combine(topology.Folder, "tsdb")}"""
                      "--web.listen-address=127.0.0.1:9090" ]
                    (Path.Combine(topology.Folder, "prometheus.log"))

            use forward = new Forward(topology.Server, 9090)
            use client = new HttpClient(BaseAddress = Uri forward.Url)

            /// The sum of a query's results; None while there is none.
            let query (text: string) : float option =
                try
                    let answer =
                        client.GetStringAsync($"/api/v1/query?query={Uri.EscapeDataString text}").Result

                    let results =
                        JsonDocument.Parse(answer).RootElement.GetProperty("data").GetProperty("result")

                    if results.GetArrayLength() = 0 then
                        None
                    else
                        results.EnumerateArray()
                        |> Seq.sumBy (fun result ->
                            let value = result.GetProperty "value"
                            float (value[1].GetString()))
                        |> Some
                with
                | :? AggregateException
                | :? HttpRequestException -> None

            let await what condition =
                running.Await (TimeSpan.FromSeconds 60.) what condition

            await "it scrapes" (fun () -> query "up" = Some 1.)
            let length = megabytes 20L

            let downloads =
                [ for index, netns in List.indexed topology.Clients do
                      let remote =
                          { Netns = topology.RemoteHost
                            Address = Topology.Remote }

                      ignore index
                      Netns.start netns (fun () -> Transfer.download remote netns length) ]

            for download in downloads do
                expectIntact (download.GetAwaiter().GetResult()) length

            for metric, counter in
                [ "tun_to_client_total", "tun_to_client"
                  "udp_gso_segments_total", "udp_gso_segments"
                  "udp_datagrams_sent_total", "udp_datagrams_sent"
                  "sum(worker_datagrams_sent_total)", "udp_datagrams_sent"
                  "sum(drops_total)", "drops_total" ] do
                // Idle clients still send keepalives, so the last scrape may be a few packets behind.
                await $"{metric} is that of {counter}" (fun () ->
                    let counted = float (vpn.Read().Counters[counter])

                    match query metric with
                    | Some value -> abs (value - counted) <= 1e-4 * counted + 20.
                    | None -> false)

            // One query each: a scrape may come between two. And a scrape may come while packets are still on their way.
            let holds what expression =
                await what (fun () -> query expression = Some 1.)

            // Of all datagrams, those with packets: each is in one run, and in one system call.
            holds "datagrams of both histograms" "udp_send_batch_size_sum == bool udp_run_segments_sum"
            holds "those of long runs are among them" "udp_run_segments_sum >= bool udp_gso_segments_total"
            holds "control datagrams are not" "udp_run_segments_sum < bool udp_datagrams_sent_total"

            holds
                "runs of one"
                "udp_run_segments_count - udp_gso_sends_total == bool on() sum(udp_run_segments_bucket{le=\"1\"})"

            holds "system calls" "udp_send_batch_size_count <= bool udp_batch_sends_total"

            await "sessions" (fun () ->
                query "sessions_current_online" = Some 8. && query "sessions_active_5m" = Some 8.)

            Expect.equal (query "conn_created_total") (Some 8.) "connections"
            Expect.isGreaterThan (query "tun_to_client_total") (Some(8. * float length)) "all that was downloaded"
            Expect.isGreaterThan (query "scrape_samples_scraped") (Some 250.) "samples"

            // A busy machine may hold one up, and then Prometheus gives it up after a second: not most of them.
            Expect.isLessThan
                (query "quantile_over_time(0.5, scrape_duration_seconds[1m])")
                (Some 0.5)
                "seconds per scrape"

            await "the last one has succeeded" (fun () -> query "count(up) - sum(up)" = Some 0.))
    }

let tests: Test =
    testList "Metrics" [ names; histograms; http; testSequenced prometheus ]
