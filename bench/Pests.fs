/// `Bench pests`: what a running download keeps, and how long a login takes, under each pest. With `--minutes`: all of them in
/// turn during downloads, memory and descriptors watched.
module Lightway.Bench.Pests

open System
open System.Diagnostics
open System.Globalization
open System.IO
open System.Text.RegularExpressions
open System.Threading
open Lightway.Bench.Matrix
open Lightway.Lab
open Lightway.Lab.Pests

let private usage =
    """usage: Lightway.Bench pests [--kinds REGEX] [--rounds N] [--seconds N]   the table; `restart` is one kind
       Lightway.Bench pests --minutes N                                  all in turn, 1 to 600 minutes"""

/// A pest and how much of it. Garbage of the same rate and length is its yardstick.
type private Nuisance = { Kind: string; Plan: Plan }

let private nuisances (target: Target) : Nuisance list =
    let plan rate length =
        { Plan.Standard with
            Rate = rate
            Length = length }

    [ { Kind = "hello"
        Plan = plan 125_000.0 (Flood.helloLength target) }
      { Kind = "header"
        Plan = plan 125_000.0 300 }
      { Kind = "jumbo"
        Plan = { plan 1_000.0 65507 with Burst = 1 } }
      { Kind = "half-open"
        Plan = plan 400.0 1400 }
      { Kind = "link-up"
        Plan = plan 400.0 1400 }
      { Kind = "login"
        Plan = plan 100.0 1400 }
      { Kind = "self"
        Plan = plan 2_000.0 170 }
      { Kind = "flap"
        Plan = plan 2_000.0 60 }
      { Kind = "flap-link-up"
        Plan = plan 2_000.0 60 }
      { Kind = "pings"
        Plan = plan 2_000.0 1468 }
      { Kind = "fragments"
        Plan = plan 2_000.0 1440 }
      { Kind = "greedy"
        Plan = plan 125_000.0 1400 }
      { Kind = "replay"
        Plan = plan 20_000.0 100 } ]

/// A server, a client that downloads, and a namespace that pests come from.
type private Site() =
    let topology = Topology.Create 2

    let vpn =
        new Vpn(
            topology,
            Programs.OfThisBuild(),
            { Expresslane = true
              Offload = true
              ServerKeys = []
              ClientKeys = [] }
        )

    do
        Shell.ip $"-n {topology.Client} route add local 198.18.0.0/16 dev lo" |> ignore
        Shell.ip $"-n {topology.Server} route add 198.18.0.0/16 via {Topology.ClientOutside}" |> ignore
        vpn.Start()

    let mutable started = 0

    let target = Target.Read(Path.Combine(vpn.Folder, "client.yaml"))

    member _.Target = target
    member _.Server = vpn.Server
    member _.Read() = vpn.Read()
    member _.Honest = topology.Clients[1]

    member _.Remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    /// From a network of its own each time: what the server remembers of one pest must not hold up the next.
    member _.Start (kind: string) (plan: Plan) =
        started <- started + 1

        let source =
            System.Net.IPAddress.Parse $"198.18.{started % 256}.{1 + started / 256}"

        Pest.start topology.Client kind target { plan with Sources = [ source ] }

    /// How long the login of a client of another network takes, up to 10 s; none if it is not in then.
    member this.Login() : TimeSpan voption =
        Netns.run this.Honest (fun () ->
            use crowd = new Crowd(target)
            let guest = crowd.Join()

            crowd.RunUntil(TimeSpan.FromSeconds 10.0, (fun () -> guest.LoginTime.IsSome || guest.Closed.IsSome))
            |> ignore

            guest.LoginTime)

    interface IDisposable with
        member _.Dispose() =
            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

/// One kind in one round.
type private Sample =
    { Alone: float // Mbit/s of the download
      UnderGarbage: float
      UnderPest: float
      PestPerSecond: float
      Login: TimeSpan voption } // under the pest

let private ahead = TimeSpan.FromSeconds 0.5 // of a pest before the clock starts
let private behind = TimeSpan.FromSeconds 3.0 // for the login

let private megabits (load: TcpLoad) (seconds: float) : float =
    let before = load.Received
    let clock = Stopwatch.StartNew()
    Thread.Sleep(TimeSpan.FromSeconds seconds)
    float (load.Received - before) * 8.0 / clock.Elapsed.TotalSeconds / 1e6

let private measure (site: Site) (load: TcpLoad) (seconds: float) (nuisance: Nuisance) : Sample =
    let under kind (rest: unit -> 'rest) =
        let duration = ahead + TimeSpan.FromSeconds seconds + behind

        let pest =
            site.Start
                kind
                { nuisance.Plan with
                    Duration = duration }

        Thread.Sleep ahead
        let rate = megabits load seconds
        let other = rest ()
        let tally = pest.GetAwaiter().GetResult()
        struct (rate, tally, other)

    let alone = megabits load seconds
    let struct (garbage, _, ()) = under "garbage" ignore
    let struct (rate, tally, login) = under nuisance.Kind site.Login

    { Alone = alone
      UnderGarbage = garbage
      UnderPest = rate
      PestPerSecond = tally.PerSecond
      Login = login }

let private median (values: float list) = (List.sort values)[values.Length / 2]

type private Line =
    { Kind: string
      Samples: Sample list }

    member this.Middle(figure: Sample -> float) =
        this.Samples |> List.map figure |> median

    /// Of the download under garbage of the same rate and length.
    member this.Share = this.Middle(fun sample -> sample.UnderPest / sample.UnderGarbage)

let private table (lines: Line list) =
    let number (format: string) (value: float) =
        value.ToString(format, CultureInfo.InvariantCulture)

    printfn ""
    printfn "| Pest | per second | alone, Mbit/s | under garbage | under the pest | of garbage | login, s |"
    printfn "| --- | --: | --: | --: | --: | --: | --: |"

    for line in lines do
        let login =
            match line.Samples |> List.map _.Login |> List.sortBy (ValueOption.defaultValue TimeSpan.MaxValue) with
            | times when times |> List.exists _.IsNone -> "not in 10"
            | times -> number "0.00" times[times.Length / 2].Value.TotalSeconds

        let cells =
            [ line.Kind
              number "0" (line.Middle _.PestPerSecond)
              number "0" (line.Middle _.Alone)
              number "0" (line.Middle _.UnderGarbage)
              number "0" (line.Middle _.UnderPest)
              number "0.00" line.Share
              login ]

        printfn "%s" ("| " + String.concat " | " cells + " |")

    printfn ""

let private judge (verdicts: Verdict list) : int =
    verdicts |> List.iter (Verdict.line >> printfn "%s")

    if verdicts |> List.exists (fun verdict -> verdict.Holds = Some false) then
        1
    else
        0

/// The download runs until this ends.
let private measureAll (kinds: Regex) (rounds: int) (seconds: float) : Line list =
    use site = new Site()
    use load = TcpLoad.Start(site.Remote, [ site.Honest ], true, "cubic")
    Thread.Sleep 2_000 // until the JIT compiler has done its work

    [ for nuisance in nuisances site.Target |> List.filter (fun nuisance -> kinds.IsMatch nuisance.Kind) do
          let samples = [ for _ in 1..rounds -> measure site load seconds nuisance ]

          let line =
              { Kind = nuisance.Kind
                Samples = samples }

          printfn $"  {line.Kind}: {line.Middle _.UnderPest:F0} of {line.Middle _.UnderGarbage:F0} Mbit/s"
          line ]

let private runTable (kinds: Regex) (rounds: int) (seconds: float) : int =
    let lines = measureAll kinds rounds seconds

    if not lines.IsEmpty then
        table lines

    judge
        [ for line in lines do
              if line.Kind = "hello" then
                  let rate = line.Middle _.PestPerSecond

                  { Text =
                      $"{rate:F0} ClientHellos per second from one host: a download keeps {line.Share:F2} of what it keeps under as much garbage; at least 0.80 of it, at 100000"
                    Holds = Some(line.Share >= 0.8 && rate >= 100_000.0) }

              { Text = $"{line.Kind}: a client of another network is online within 5 s"
                Holds =
                  Some(
                      line.Samples
                      |> List.forall (fun sample -> sample.Login.IsSome && sample.Login.Value.TotalSeconds <= 5.0)
                  ) }

          if kinds.IsMatch "restart" then
              Restart.run () ]

/// Resident memory in MB (VmRSS of proc_pid_status(5), in KiB there), and open descriptors.
let private footprint (child: Child) : struct (float * int) =
    let status = File.ReadAllText $"/proc/{child.Pid}/status"

    let resident =
        float (Regex.Match(status, @"VmRSS:\s+(\d+) kB").Groups[1].Value) * 1024.0 / 1e6

    struct (resident, Directory.GetFileSystemEntries($"/proc/{child.Pid}/fd").Length)

let private turn = TimeSpan.FromSeconds 8.0 // of each pest
let private growthLimit = 20.0 // MB after the first round of all pests
let private downloadLength = 200_000_000L

let private runSoak (minutes: float) : int =
    use site = new Site()
    let clock = Stopwatch.StartNew()
    let isOver () = clock.Elapsed.TotalMinutes >= minutes
    let struct (_, descriptors) = footprint site.Server

    let downloads =
        Netns.start site.Honest (fun () ->
            [ while not (isOver ()) do
                  (Transfer.download site.Remote site.Honest downloadLength).IsIntact ])

    let rounds =
        [ while not (isOver ()) do
              for nuisance in nuisances site.Target do
                  if not (isOver ()) then
                      let tally =
                          (site.Start nuisance.Kind { nuisance.Plan with Duration = turn }).GetAwaiter().GetResult()

                      let struct (resident, _) = footprint site.Server
                      printfn $"{clock.Elapsed.TotalSeconds, 5:F0} s  server {resident:F1} MB  {nuisance.Kind}: {tally}"

              let struct (resident, _) = footprint site.Server
              resident ]

    let arrived = downloads.GetAwaiter().GetResult()
    let login = site.Login()
    let struct (_, after) = footprint site.Server
    let growth = List.max rounds - rounds.Head

    judge
        [ { Text =
              $"{arrived.Length} downloads of {downloadLength / 1_000_000L} MB, {arrived |> List.filter id |> List.length} of them as they were sent; all"
            Holds = Some(not arrived.IsEmpty && List.forall id arrived) }
          { Text =
              $"server: resident memory {rounds.Head:F1} MB after all pests once, then at most {growth:F1} MB more; at most {growthLimit}"
            Holds = Some(growth <= growthLimit) }
          { Text = $"server: {descriptors} descriptors before, {after} after; as many"
            Holds = Some(after = descriptors) }
          { Text = "afterwards a client is online"
            Holds = Some login.IsSome } ]

let private number (low: float) (high: float) (text: string) : float =
    match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
    | true, value when value >= low && value <= high -> value
    | _ -> invalidArg "" $"{text} is not a number from {low} to {high}"

let rec private parse (kinds: Regex) (rounds: int) (seconds: float) (arguments: string list) : int =
    match arguments with
    | [] -> runTable kinds rounds seconds
    | [ "--minutes"; text ] -> runSoak (number 1.0 600.0 text)
    | "--kinds" :: text :: rest -> parse (Regex text) rounds seconds rest
    | "--rounds" :: text :: rest -> parse kinds (int (number 1.0 100.0 text)) seconds rest
    | "--seconds" :: text :: rest -> parse kinds rounds (number 0.5 60.0 text) rest
    | argument :: _ -> invalidArg "" $"{argument} is not understood\n{usage}"

/// 0; 1 when a verdict fails or it cannot run; 2 for wrong arguments; 130 when interrupted.
let run (arguments: string list) : int =
    try
        parse (Regex "") 3 2.0 arguments
    with
    | _ when Topology.IsInterrupted -> 130
    | :? ArgumentException as error ->
        eprintfn $"pests: {error.Message}"
        2
    | error -> // a lab that does not work, a transfer that breaks: one line, whatever its type
        eprintfn $"pests: {error.Message}"
        1
