/// `Bench scale`: what a server costs per client, from four to thousands, at one total rate.
[<RequireQualifiedAccess>]
module Lightway.Bench.Load.Scaling

open System
open System.Diagnostics
open System.Globalization
open System.IO
open System.Threading
open Lightway.Bench.Matrix
open Lightway.Lab
open Lightway.Lab.Load
open Lightway.Server.Auth

type Plan =
    {
        /// Clients, rising.
        Sizes: int list
        Rounds: int
        Seconds: float
        /// Inside Mbit/s of all clients together, of segments and of single datagrams.
        Megabits: float
        SingleMegabits: float
        /// What the names of the measured kinds contain; "": all.
        Kind: string
        ShowsCounters: bool
    }

    static member Standard: Plan =
        { Sizes = [ 4; 100; 1_000; 5_000 ]
          Rounds = 3
          Seconds = 2.0
          Megabits = 2_000.0
          SingleMegabits = 200.0
          Kind = ""
          ShowsCounters = false }

/// One direction and kind of packet.
type private Kind =
    { Name: string; Up: Offer; Down: Offer }

let private kinds (plan: Plan) : Kind list =
    let segments = Offer.Tcp plan.Megabits
    let bursts = Offer.UdpBursts plan.Megabits
    let singles = Offer.UdpSingles plan.SingleMegabits

    let both (name: string) (offer: Offer) =
        [ { Name = $"{name} down"
            Up = Offer.None
            Down = offer }
          { Name = $"{name} up"
            Up = offer
            Down = Offer.None } ]

    both "tcp" segments @ both "udp bursts" bursts @ both "udp singles" singles
    |> List.filter _.Name.Contains(plan.Kind)

/// One kind with one number of clients, in one round.
type private Cell =
    { Kind: string
      Clients: int
      Passage: Passage
      SendsPerMegabyte: float
      RunsPerSend: float
      ReceivesPerMegabyte: float
      WritesPerMegabyte: float
      TickMicroseconds: float
      Drops: int64 }

/// A number of clients reached.
type private Step =
    { Count: int
      LoginsPerSecond: float
      LoginCpuMs: float // of the server, per login
      FleetCpuMs: float // of this process
      Resident: float } // bytes

let private cheapHash () =
    match LibCrypt.Hash(ReadOnlySpan(Text.Encoding.UTF8.GetBytes LoadSite.Password), "$1$salt$") with
    | null -> raise (LabException "libcrypt has no MD5 crypt")
    | hash -> hash

let private cell (site: LoadSite) (plan: Plan) (count: int) (kind: Kind) : Cell =
    let passage = site.Pass(kind.Up, kind.Down, 0.5, plan.Seconds)
    let megabytes = passage.Megabits * passage.Seconds / 8.0
    let grown name = float (passage.Grown name)

    { Kind = kind.Name
      Clients = count
      Passage = passage
      SendsPerMegabyte = grown "udp_batch_sends" / megabytes
      RunsPerSend = grown "udp_datagrams_sent" / max 1.0 (grown "udp_batch_sends")
      ReceivesPerMegabyte = grown "udp_receives" / megabytes
      WritesPerMegabyte = grown "tun_writes" / megabytes
      TickMicroseconds = grown "tick_time" / max 1.0 (grown "ticks")
      Drops = passage.Grown "drops_total" }

let private grow (site: LoadSite) (count: int) : Step =
    let before = site.Fleet.State
    let cpu = site.Server.CpuSeconds
    let own = Environment.CpuUsage.TotalTime
    let seconds = site.Grow(count, TimeSpan.FromSeconds 60.0)
    let logins = float (site.Fleet.State.Logins - before.Logins)
    let spent = site.Server.CpuSeconds - cpu
    Thread.Sleep 1_500 // what the logins have left to do

    { Count = count
      LoginsPerSecond = logins / seconds
      LoginCpuMs = spent / logins * 1e3
      FleetCpuMs = (Environment.CpuUsage.TotalTime - own).TotalMilliseconds / logins
      Resident = site.ResidentBytes }

let private number (digits: int) (value: float) =
    value.ToString($"F{digits}", CultureInfo.InvariantCulture)

let private median (values: float list) = (List.sort values)[values.Length / 2]

/// Columns of text, the first one to the left.
let internal table (head: string list) (rows: string list list) =
    let line (cells: string list) = "| " + String.concat " | " cells + " |"

    String.concat
        "\n"
        (line head
         :: line (head |> List.mapi (fun index _ -> if index < 1 then "---" else "--:"))
         :: List.map line rows)

let private cellsTable (cells: Cell list) =
    let rows =
        cells
        |> List.groupBy (fun cell -> cell.Kind, cell.Clients)
        |> List.map (fun ((kind, clients), all) ->
            let middle read = all |> List.map read |> median

            [ $"{kind}, {clients} clients"
              number 0 (middle _.Passage.Megabits)
              number 3 (middle _.Passage.Share)
              number 2 (middle _.Passage.CpuPerGigabyte)
              number 2 (middle _.Passage.Slowest)
              number 1 (middle _.SendsPerMegabyte)
              number 1 (middle _.RunsPerSend)
              number 1 (middle _.ReceivesPerMegabyte)
              number 1 (middle _.WritesPerMegabyte)
              number 0 (middle _.TickMicroseconds)
              string (all |> List.sumBy _.Drops) ])

    table
        [ "traffic"
          "Mbit/s"
          "of the offer"
          "server CPU s/GB"
          "slowest / mean"
          "sends/MB"
          "datagrams/send"
          "receives/MB"
          "TUN writes/MB"
          "tick µs"
          "drops" ]
        rows

let private stepsTable (steps: Step list) =
    steps
    |> List.groupBy _.Count
    |> List.map (fun (count, all) ->
        let middle read = all |> List.map read |> median

        [ string count
          number 0 (middle _.LoginsPerSecond)
          number 2 (middle _.LoginCpuMs)
          number 2 (middle _.FleetCpuMs)
          number 1 (middle _.Resident / 1e6) ])
    |> table
        [ "clients"
          "logins per second"
          "server CPU ms per login"
          "clients' CPU ms"
          "server resident MB" ]

let private atMost (limit: float) (text: string) (value: float) : Verdict =
    { Text = $"{text}: {number 2 value}; at most {limit}"
      Holds = Some(value <= limit) }

let private atLeast (limit: float) (text: string) (value: float) : Verdict =
    { Text = $"{text}: {number 2 value}; at least {limit}"
      Holds = Some(value >= limit) }

let private verdicts (plan: Plan) (cells: Cell list) : Verdict list =
    let few = plan.Sizes.Head

    [ for kind in kinds plan do
          for many in plan.Sizes.Tail |> List.filter (fun size -> size >= 1_000) do
              let of' clients =
                  cells |> List.filter (fun cell -> cell.Kind = kind.Name && cell.Clients = clients)

              // The rounds of one server each: their ratios are formed before the median.
              let ratios =
                  List.map2
                      (fun large small -> large.Passage.CpuPerGigabyte / small.Passage.CpuPerGigabyte)
                      (of' many)
                      (of' few)

              if many = 1_000 then
                  atMost 1.5 $"{kind.Name}: server CPU per GB, {many} clients / {few}" (median ratios)

                  atLeast
                      0.5
                      $"{kind.Name}: the slowest of {many} clients, of the mean"
                      (of' many |> List.map _.Passage.Slowest |> median) ]

/// Rounds with a server of its own each: it grows from size to size, and all kinds are measured at each.
let private measure (plan: Plan) : struct (Cell list * Step list) =
    let cells = ResizeArray<Cell>()
    let steps = ResizeArray<Step>()

    for round in 1 .. plan.Rounds do
        use site = LoadSite.Start(List.max plan.Sizes, cheapHash (), true, [])

        for count in plan.Sizes do
            let step = grow site count
            steps.Add step

            if count = plan.Sizes.Head then // until the JIT compiler has done its work
                for kind in kinds plan do
                    site.Pass(kind.Up, kind.Down, 0.0, 1.0) |> ignore

            printfn
                $"round {round}: {count} clients, {number 0 step.LoginsPerSecond} logins per second, {number 2 step.LoginCpuMs} ms each, resident {number 1 (step.Resident / 1e6)} MB"

            for kind in kinds plan do
                let cell = cell site plan count kind
                cells.Add cell

                if plan.ShowsCounters then
                    let text (counters: (string * int64) list) =
                        counters |> List.map (fun (name, value) -> $"{name}={value}") |> String.concat " "

                    printfn $"    server: {text cell.Passage.Counters}"
                    printfn $"    fleet, since its start: {text site.Fleet.Counters}"

                printfn
                    $"  {kind.Name}: {number 0 cell.Passage.Megabits} Mbit/s, {number 2 cell.Passage.CpuPerGigabyte} s/GB, slowest {number 2 cell.Passage.Slowest}, {cell.Drops} drops"

    struct (List.ofSeq cells, List.ofSeq steps)

/// Resident memory per idle client, from the second largest to the largest number of each round: the first clients make the
/// server's tables and compile its code. None of a single size.
let private residentPerClient (plan: Plan) (steps: Step list) : float option =
    let resident count =
        steps |> List.filter (fun step -> step.Count = count) |> List.map _.Resident |> median

    match List.rev plan.Sizes with
    | large :: small :: _ when not steps.IsEmpty -> Some((resident large - resident small) / float (large - small))
    | _ -> None

let private memory (resident: float option) : Verdict list =
    let share = Memory.measure 500
    let kib (bytes: float) = number 1 (bytes / 1024.0)

    printfn
        $"idle client: managed {kib share.Managed} KiB, native {kib share.Native} KiB, TLS session {kib share.Session} KiB"

    resident
    |> Option.iter (fun bytes -> printfn $"resident memory of the server per client: {kib bytes} KiB")

    [ atMost 24.0 "KiB of an idle client without its TLS session, managed and native" (share.Own / 1024.0) ]

/// New clients per minute while a client of another namespace downloads.
let private underLogins (plan: Plan) : Verdict list =
    use site = LoadSite.Start(64, cheapHash (), true, [], clientCount = 2)

    site.Vpn.StartClient()
    site.Vpn.AwaitOnline()
    site.Grow(64, TimeSpan.FromSeconds 30.0) |> ignore

    use load =
        TcpLoad.Start(
            { Netns = site.Topology.RemoteHost
              Address = Topology.Remote },
            [ site.Topology.Clients[1] ],
            true,
            "cubic"
        )

    Thread.Sleep 2_000 // until the JIT compiler has done its work

    let megabits () =
        let before = load.Received
        let clock = Stopwatch.StartNew()
        Thread.Sleep(TimeSpan.FromSeconds plan.Seconds)
        float (load.Received - before) * 8.0 / clock.Elapsed.TotalSeconds / 1e6

    let samples =
        [ for _ in 1 .. plan.Rounds do
              let alone = megabits ()
              let before = site.Fleet.State.Logins
              let own = Environment.CpuUsage.TotalTime
              let cpu = site.Server.CpuSeconds
              let clock = Stopwatch.StartNew()
              site.Fleet.Churn <- 2_100.0 / 60.0
              let under = megabits ()

              let perMinute =
                  float (site.Fleet.State.Logins - before) / clock.Elapsed.TotalMinutes

              let own = (Environment.CpuUsage.TotalTime - own).TotalSeconds
              let cpu = site.Server.CpuSeconds - cpu
              site.Fleet.Churn <- 0.0
              Thread.Sleep 300

              printfn
                  $"  download {number 0 alone} Mbit/s, {number 0 under} with {number 0 perMinute} logins per minute (server {number 2 cpu} s of CPU, this process {number 2 own} s)"

              struct (under / alone, perMinute) ]

    let share = samples |> List.map (fun (struct (share, _)) -> share) |> median

    let rate = samples |> List.map (fun (struct (_, rate)) -> rate) |> median

    [ { Text =
          $"a download keeps {number 2 share} of its throughput under {number 0 rate} handshakes with login per minute; at least 0.9, at 2000"
        Holds = Some(share >= 0.9 && rate >= 2_000.0) } ]

let private judge (verdicts: Verdict list) : int =
    verdicts |> List.iter (Verdict.line >> printfn "%s")

    if verdicts |> List.exists (fun verdict -> verdict.Holds = Some false) then
        1
    else
        0

let private usage =
    """usage: Lightway.Bench scale [--clients N,N,…] [--rounds N] [--seconds N] [--megabits N] [--singles N] [--kind TEXT] [--counters] [--only matrix|logins|memory]"""

let private positive (text: string) =
    match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
    | true, value when value > 0.0 && value < 1e6 -> value
    | _ -> invalidArg "" $"{text} is not a positive number"

let rec private parse (plan: Plan) (only: string) (arguments: string list) : struct (Plan * string) =
    match arguments with
    | [] -> struct (plan, only)
    | "--clients" :: text :: rest ->
        let sizes = text.Split ',' |> Array.map (positive >> int) |> List.ofArray

        if List.max sizes > 10_000 then
            invalidArg "" "more than 10000 clients are not served"

        parse { plan with Sizes = List.sort sizes } only rest
    | "--rounds" :: text :: rest ->
        parse
            { plan with
                Rounds = int (positive text) }
            only
            rest
    | "--seconds" :: text :: rest -> parse { plan with Seconds = positive text } only rest
    | "--megabits" :: text :: rest -> parse { plan with Megabits = positive text } only rest
    | "--singles" :: text :: rest ->
        parse
            { plan with
                SingleMegabits = positive text }
            only
            rest
    | "--kind" :: text :: rest when not (kinds { plan with Kind = text }).IsEmpty ->
        parse { plan with Kind = text } only rest
    | "--counters" :: rest -> parse { plan with ShowsCounters = true } only rest
    | "--only" :: text :: rest when List.contains text [ "matrix"; "logins"; "memory" ] -> parse plan text rest
    | argument :: _ -> invalidArg "" $"{argument} is not understood\n{usage}"

let private all (plan: Plan) (only: string) : int =
    let isAsked name = only = "" || only = name

    let struct (cells, steps) =
        if isAsked "matrix" then measure plan else struct ([], [])

    if isAsked "matrix" then
        let tables = $"{cellsTable cells}\n\n{stepsTable steps}\n"
        let folder = Path.Combine("artifacts", "bench")
        Directory.CreateDirectory folder |> ignore
        File.WriteAllText(Path.Combine(folder, "scale.md"), tables)
        printfn $"\n{tables}"

    judge
        [ yield! if isAsked "matrix" then verdicts plan cells else []
          yield!
              if isAsked "memory" then
                  memory (residentPerClient plan steps)
              else
                  []
          yield! if isAsked "logins" then underLogins plan else [] ]

/// 0; 1 when a verdict fails or it cannot run; 2 for wrong arguments; 130 when interrupted.
let run (arguments: string list) : int =
    try
        let struct (plan, only) = parse Plan.Standard "" arguments
        all plan only
    with
    | _ when Topology.IsInterrupted -> 130
    | :? ArgumentException as error ->
        eprintfn $"scale: {error.Message}"
        2
    | error ->
        eprintfn $"scale: {error.Message}"
        1
