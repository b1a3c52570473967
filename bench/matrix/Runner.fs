/// Runs the matrix: for each cell the variants take turns, round by round.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Runner

open System
open System.Diagnostics
open System.Text.RegularExpressions
open System.Threading
open Lightway.Lab

/// How it is run.
type Plan =
    { Cells: Regex
      Seconds: float // measured, of each run
      WarmUp: float // seconds of the same traffic before
      Rounds: int
      AeadRounds: int // of the two variants whose libraries for AES-GCM are compared, if that is more
      OfferedMegabits: float // of datagrams, per second
      Congestion: string // TCP's congestion control at all ends
      OtherServer: string option
      OtherClient: string option
      Yardstick: bool }

let private clock = Stopwatch.StartNew()
let private pingIntervalMs = 5

let private remote (topology: Topology) =
    { Netns = topology.RemoteHost
      Address = Topology.Remote }

/// Some traffic that is under way: how to read its counters, and how to end it.
[<NoComparison; NoEquality>]
type private Load =
    { Received: unit -> int64
      Retransmits: unit -> int64 option
      FinishAndLoss: unit -> float option // part of the datagrams that did not arrive
      End: IDisposable }

let private startTcp (congestion: string) (topology: Topology) (isDownload: bool) (flows: int) =
    let dialers =
        List.init flows (fun flow -> topology.Clients[flow % topology.Clients.Length])

    let load = TcpLoad.Start(remote topology, dialers, isDownload, congestion)

    { Received = fun () -> load.Received
      Retransmits = fun () -> Some load.Retransmits
      FinishAndLoss = fun () -> None
      End = load }

let private startUdp (megabits: float) (topology: Topology) (isDownload: bool) (burst: int) =
    let load =
        UdpLoad.Start(remote topology, topology.Client, isDownload, Cell.DatagramLength, burst, megabits * 1e6)

    { Received = fun () -> load.Received
      Retransmits = fun () -> None
      FinishAndLoss = fun () -> Some(load.FinishAndLoss())
      End = load }

/// A cell's traffic.
let private start (plan: Plan) (cell: Cell) (topology: Topology) : Load =
    let isDownload = (cell.Direction = Down)

    match cell.Traffic with
    | Tcp flows
    | Ping flows -> startTcp plan.Congestion topology isDownload flows
    | Udp burst -> startUdp plan.OfferedMegabits topology isDownload burst

let private checksumErrors (netns: string) =
    let counters = NetworkCounters.snmp netns
    counters["Tcp.InCsumErrors"] + counters["Udp.InCsumErrors"] + counters["Ip.InHdrErrors"]

let private snapshot (contender: Contender) (load: Load) : Snapshot =
    let topology = contender.Topology

    let cpu (children: Child list) =
        children
        |> List.map _.CpuTimes
        |> List.fold (fun struct (a, b) struct (c, d) -> struct (a + c, b + d)) struct (0.0, 0.0)

    // First what moves fastest.
    let seconds = clock.Elapsed.TotalSeconds
    let received = load.Received()
    let serverCpu = cpu [ contender.Server ]
    let clientCpu = cpu contender.Clients

    let socketDrops netns =
        (NetworkCounters.snmp netns)["Udp.RcvbufErrors"]

    { Seconds = seconds
      Received = received
      Retransmits = load.Retransmits()
      ServerCpu = serverCpu
      ClientCpu = clientCpu
      Server = contender.ReadServer()
      Clients = contender.ReadClients()
      ServerSocketDrops = socketDrops topology.Server
      ClientSocketDrops = topology.Clients |> List.sumBy socketDrops
      ServerTunDrops = NetworkCounters.deviceDrops topology.Server contender.ServerDevice
      ClientTunDrops =
        topology.Clients
        |> List.sumBy (fun netns -> NetworkCounters.deviceDrops netns (contender.ClientDevice netns))
      ChecksumErrors = topology.Server :: topology.RemoteHost :: topology.Clients |> List.sumBy checksumErrors }

let private sleep (seconds: float) =
    Thread.Sleep(TimeSpan.FromSeconds seconds)

/// One run of a cell by a variant.
let private measure (plan: Plan) (cell: Cell) (round: int) (contender: Contender) : Row =
    let topology = contender.Topology

    for child in contender.Server :: contender.Clients do
        if child.HasExited then
            raise (LabException $"{child.Name} has ended. Log:\n{child.LogTail}")

    let load = start plan cell topology
    use _ = load.End
    sleep plan.WarmUp
    let before = snapshot contender load

    let pings =
        match cell.Traffic with
        | Ping _ -> Some(Probe.roundTrips topology.Client Topology.Remote pingIntervalMs plan.Seconds)
        | _ ->
            sleep plan.Seconds
            None

    let row = Row.between cell contender.Name round before (snapshot contender load)

    { row with
        LossPercent = load.FinishAndLoss() |> Option.map ((*) 100.0)
        PingMilliseconds =
            match pings with
            | Some pings -> pings.Milliseconds
            | None -> []
        PingLost =
            match pings with
            | Some pings -> pings.Sent - pings.Milliseconds.Length
            | None -> 0 }

/// The variants of the cells that share their programs, each up in a topology of its own.
let private contendersOf (plan: Plan) (path: Path) (clients: int) (cells: Cell list) : Contender list =
    let ours = Programs.OfThisBuild()
    let started = ResizeArray<Contender>()

    let pair name programs =
        for offload in [ false; true ] do
            let variant = name + if offload then "on" else "off"
            started.Add(Contender.lightway variant programs path offload clients)

    try
        pair "" ours

        if plan.OtherServer.IsSome || plan.OtherClient.IsSome then
            pair
                "other "
                { Server = defaultArg plan.OtherServer ours.Server
                  Client = defaultArg plan.OtherClient ours.Client }

        if List.exists Cell.comparesAeads cells then
            started.Add(Contender.lightwayWith [ "aead", "wolfcrypt" ] Cell.OnByWolfCrypt ours path true clients)

        if plan.Yardstick && path = Expresslane then
            started.Add(Yardstick.contender clients)

        List.ofSeq started
    with _ ->
        for contender in started do
            (contender :> IDisposable).Dispose()

        reraise ()

/// Who takes part in a round of a cell. The libraries for AES-GCM are compared by medians, which take more rounds.
let private takesPart (plan: Plan) (cell: Cell) (round: int) (contender: Contender) =
    let isCompared = Cell.comparesAeads cell

    match contender.Name with
    | Cell.OnByWolfCrypt -> isCompared
    | "on" -> round <= plan.Rounds || isCompared
    | _ -> round <= plan.Rounds

/// Rows of the cells that the plan names, as they come. A run that breaks is reported on standard error and has no row.
let run (plan: Plan) (onRow: Row -> unit) : unit =
    let cells = Cell.all |> List.filter (fun cell -> plan.Cells.IsMatch cell.Name)

    for (path, clients), cells in cells |> List.groupBy (fun cell -> cell.Path, cell.Clients) do
        let contenders = contendersOf plan path clients cells

        try
            for cell in cells do
                for round in 1 .. max plan.Rounds plan.AeadRounds do
                    for contender in contenders |> List.filter (takesPart plan cell round) do
                        try
                            onRow (measure plan cell round contender)
                        with error when not Topology.IsInterrupted ->
                            eprintfn $"bench: {cell.Name}, {contender.Name}: {error.Message}"
        finally
            for contender in contenders do
                (contender :> IDisposable).Dispose()

/// Samples our server with offload on, in the cells of the chart of costs that the plan names, with programs of their own, so
/// that no measured figure is disturbed. Precondition: `Profile.isPossible`. Failures are reported on standard error.
let profile (plan: Plan) : Profile list =
    let cells =
        Cell.all
        |> List.filter (fun cell ->
            cell.Path = Expresslane && cell.Traffic = Tcp 1 && cell.Clients = 1 && plan.Cells.IsMatch cell.Name)

    let sample (folder: string) (contender: Contender) (cell: Cell) =
        use _ = (start plan cell contender.Topology).End
        sleep (plan.WarmUp + 2.0) // until the runtime has compiled all for good
        let stacks = Profile.take folder plan.Seconds contender.Server.Pid

        { Cell = cell.Name
          Variant = contender.Name
          Samples = stacks.Length
          Shares = Profile.sum stacks }

    let folder = IO.Directory.CreateTempSubdirectory().FullName

    try
        try
            if cells.IsEmpty then
                []
            else
                use contender =
                    Profile.withNames folder (fun () ->
                        Contender.lightway "on" (Programs.OfThisBuild()) Expresslane true 1)

                List.map (sample folder contender) cells
        with error when not Topology.IsInterrupted ->
            eprintfn $"bench: profile: {error.Message}"
            []
    finally
        IO.Directory.Delete(folder, recursive = true)
