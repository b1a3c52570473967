/// `Bench pacing`: what the length of a run (`gso_max_burst`) does to other traffic on a link of limited rate, between the
/// server and its only client.
[<RequireQualifiedAccess>]
module Lightway.Bench.Load.Pacing

open System
open System.Diagnostics
open System.Globalization
open System.Threading
open Lightway.Bench.Matrix
open Lightway.Lab

[<Literal>]
let private Flows = 4

let private limits = [ "250us"; "1ms"; "0s" ] // of gso_max_burst; 0s: none

/// One run with one rate and one limit.
type private Sample =
    { Rate: int // of the link, Mbit/s
      Limit: string
      Megabits: float // downloaded, Mbit/s
      Median: float // of the pings' round-trip times, ms
      P99: float
      PerRun: float } // datagrams, of runs of at least two

let private percentile (share: float) (values: float list) =
    let sorted = List.sort values
    sorted[min (sorted.Length - 1) (int (share * float sorted.Length))]

/// The link from the server to its client has a rate from now on. TBF sends a run whole, when there are tokens for all of it.
/// Pings come before all others, as with a fair queue: what they wait for is the run that is on its way.
let private narrow (topology: Topology) (megabits: int) =
    for arguments in
        [ $"qdisc replace dev outside root handle 1: tbf rate {megabits}mbit burst 66000 limit 1000000"
          "qdisc replace dev outside parent 1:1 handle 10: htb default 20"
          "class replace dev outside parent 10: classid 10:10 htb rate 40gbit prio 0 quantum 66000"
          "class replace dev outside parent 10: classid 10:20 htb rate 40gbit prio 1 quantum 66000"
          "filter replace dev outside parent 10: protocol ip u32 match ip protocol 1 0xff flowid 10:10" ] do
        Shell.run "tc" ([ "-n"; topology.Server ] @ List.ofArray (arguments.Split ' ')) |> ignore

let private sample (programs: Programs) (seconds: float) (rate: int) (limit: string) : Sample =
    use topology = Topology.Create()

    use vpn =
        new Vpn(
            topology,
            programs,
            { Expresslane = true
              Offload = true
              ServerKeys = [ "gso_max_burst", limit ]
              ClientKeys = [] }
        )

    vpn.Start()
    narrow topology rate

    use load =
        TcpLoad.Start(
            { Netns = topology.RemoteHost
              Address = Topology.Remote },
            List.replicate Flows topology.Client,
            true,
            "cubic"
        )

    Thread.Sleep 2_000 // until the downloads share the link
    let before = load.Received
    let reading = vpn.Read()
    let clock = Stopwatch.StartNew()
    let pings = Probe.roundTrips topology.Client Topology.ServerOutside 10 seconds
    let elapsed = clock.Elapsed.TotalSeconds
    let received = load.Received - before
    let since = vpn.Read().Since reading

    { Rate = rate
      Limit = limit
      Megabits = float received * 8.0 / elapsed / 1e6
      Median = percentile 0.5 pings.Milliseconds
      P99 = percentile 0.99 pings.Milliseconds
      PerRun = float (since "udp_gso_segments") / float (max 1L (since "udp_gso_sends")) }

let private number (digits: int) (value: float) =
    value.ToString($"F{digits}", CultureInfo.InvariantCulture)

let private measure (programs: Programs) (rounds: int) (seconds: float) : int =
    let samples =
        [ for round in 1..rounds do
              for rate in [ 100; 1_000 ] do
                  for limit in limits do
                      let sample = sample programs seconds rate limit

                      printfn
                          $"round {round}: {rate} Mbit/s, gso_max_burst {limit}: {number 1 sample.Megabits} Mbit/s down, ping {number 2 sample.Median} ms, p99 {number 2 sample.P99} ms, {number 1 sample.PerRun} datagrams per run"

                      sample ]

    let median (values: float list) = percentile 0.5 values

    samples
    |> List.groupBy (fun sample -> sample.Rate, sample.Limit)
    |> List.map (fun ((rate, limit), group) ->
        [ string rate
          limit
          number 1 (median (group |> List.map _.Megabits))
          number 2 (median (group |> List.map _.Median))
          number 2 (median (group |> List.map _.P99))
          number 1 (median (group |> List.map _.PerRun)) ])
    |> Scaling.table [ "link, Mbit/s"; "gso_max_burst"; "down, Mbit/s"; "ping, ms"; "p99, ms"; "datagrams per run" ]
    |> printfn "%s"

    0

/// 0; 1 when it cannot run; 2 for wrong arguments; 130 when interrupted.
let run (arguments: string list) : int =
    try
        let rec parse (rounds: int) (seconds: float) (arguments: string list) =
            match arguments with
            | [] -> measure (Programs.OfThisBuild()) rounds seconds
            | "--rounds" :: text :: rest -> parse (int text) seconds rest
            | "--seconds" :: text :: rest -> parse rounds (float text) rest
            | _ ->
                eprintfn "usage: Lightway.Bench pacing [--rounds N] [--seconds N]"
                2

        parse 3 10.0 arguments
    with
    | _ when Topology.IsInterrupted -> 130
    | error ->
        eprintfn $"pacing: {error.Message}"
        1
