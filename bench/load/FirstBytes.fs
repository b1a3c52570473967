/// `Bench start`: how slow the first bytes of a fresh server and a fresh client are, and what a server without clients holds in
/// memory.
[<RequireQualifiedAccess>]
module Lightway.Bench.Load.FirstBytes

open System
open System.Diagnostics
open System.Globalization
open System.IO
open System.Text.RegularExpressions
open System.Threading
open Lightway.Bench.Matrix
open Lightway.Lab

[<Literal>]
let private First = 100_000_000L // bytes

/// One start.
type private Sample =
    { FirstMegabits: float // of the first 100 MB
      SteadyMegabits: float
      FirstCpu: float // seconds of both programs together for the first 100 MB
      SteadyCpu: float // and for 100 MB later
      ReadySeconds: float // from the server's start until it serves
      IdleMegabytes: float // resident, of the server without clients, after a few seconds
      AnonymousMegabytes: float } // of these, not backed by files

let private status (child: Child) (key: string) : float =
    let text = File.ReadAllText $"/proc/{child.Pid}/status"
    float (Regex.Match(text, key + @":\s+(\d+) kB").Groups[1].Value) * 1024.0 / 1e6

let private sample (programs: Programs) (isDownload: bool) : Sample =
    use topology = Topology.Create()

    use vpn =
        new Vpn(
            topology,
            programs,
            { Expresslane = true
              Offload = true
              ServerKeys = []
              ClientKeys = [] }
        )

    let clock = Stopwatch.StartNew()
    vpn.StartServer()
    let ready = clock.Elapsed.TotalSeconds
    Thread.Sleep 3_000
    let idle = status vpn.Server "VmRSS"
    let anonymous = status vpn.Server "RssAnon"
    vpn.StartClient()
    vpn.AwaitOnline()

    use load =
        TcpLoad.Start(
            { Netns = topology.RemoteHost
              Address = Topology.Remote },
            [ topology.Client ],
            isDownload,
            "cubic"
        )

    let cpu () =
        vpn.Server.CpuSeconds + vpn.Client.CpuSeconds

    let spent = cpu ()
    let clock = Stopwatch.StartNew()

    while load.Received < First && clock.Elapsed.TotalSeconds < 20.0 do
        Thread.Sleep 1

    let first = float load.Received * 8.0 / clock.Elapsed.TotalSeconds / 1e6
    let firstCpu = (cpu () - spent) * float First / float load.Received
    Thread.Sleep 4_000 // until the JIT compiler has done its work
    let before = load.Received
    let spent = cpu ()
    let clock = Stopwatch.StartNew()
    Thread.Sleep 1_500
    let bytes = float (load.Received - before)

    { FirstMegabits = first
      SteadyMegabits = bytes * 8.0 / clock.Elapsed.TotalSeconds / 1e6
      FirstCpu = firstCpu
      SteadyCpu = (cpu () - spent) * float First / bytes
      ReadySeconds = ready
      IdleMegabytes = idle
      AnonymousMegabytes = anonymous }

let private number (digits: int) (value: float) =
    value.ToString($"F{digits}", CultureInfo.InvariantCulture)

let private median (values: float list) = (List.sort values)[values.Length / 2]

let private measure (programs: Programs) (rounds: int) : int =
    let samples =
        [ for round in 1..rounds do
              for isDownload in [ true; false ] do
                  let sample = sample programs isDownload
                  let direction = if isDownload then "down" else "up"

                  printfn
                      $"round {round}, {direction}: first 100 MB at {number 0 sample.FirstMegabits} Mbit/s, then {number 0 sample.SteadyMegabits}; CPU of both programs {number 2 sample.FirstCpu} s, then {number 2 sample.SteadyCpu} s per 100 MB; ready in {number 2 sample.ReadySeconds} s, idle {number 1 sample.IdleMegabytes} MB ({number 1 sample.AnonymousMegabytes} anonymous)"

                  struct (isDownload, sample) ]

    let share (isDownload: bool) =
        samples
        |> List.filter (fun (struct (direction, _)) -> direction = isDownload)
        |> List.map (fun (struct (_, sample)) -> sample.FirstMegabits / sample.SteadyMegabits)
        |> median

    let idle =
        samples |> List.map (fun (struct (_, sample)) -> sample.IdleMegabytes) |> median

    let verdicts: Verdict list =
        [ for isDownload, name in [ true, "down"; false, "up" ] do
              let share = share isDownload

              { Text = $"{name}: the first 100 MB of the steady rate: {number 2 share}; at least 0.5"
                Holds = Some(share >= 0.5) }
          { Text = $"resident memory of a server without clients, MB: {number 1 idle}; at most 60"
            Holds = Some(idle <= 60.0) } ]

    verdicts |> List.iter (Verdict.line >> printfn "%s")

    if verdicts |> List.exists (fun verdict -> verdict.Holds = Some false) then
        1
    else
        0

/// 0; 1 when a verdict fails or it cannot run; 2 for wrong arguments; 130 when interrupted.
let run (arguments: string list) : int =
    try
        let rec parse (programs: Programs) (rounds: int) (arguments: string list) =
            match arguments with
            | [] -> measure programs rounds
            | "--rounds" :: text :: rest -> parse programs (int text) rest
            | "--server-binary" :: path :: rest -> parse { programs with Server = path } rounds rest
            | "--client-binary" :: path :: rest -> parse { programs with Client = path } rounds rest
            | _ ->
                eprintfn "usage: Lightway.Bench start [--rounds N] [--server-binary PATH] [--client-binary PATH]"
                2

        parse (Programs.OfThisBuild()) 3 arguments
    with
    | _ when Topology.IsInterrupted -> 130
    | error ->
        eprintfn $"start: {error.Message}"
        1
