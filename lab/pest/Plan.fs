namespace Lightway.Lab.Pests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Threading

/// Where a pest's server is, and what a client needs to log in there.
type Target =
    {
        Server: IPEndPoint
        /// PEM of the authority that signed the server's certificate.
        Ca: byte[]
        User: string
        Password: string
    }

    /// Reads the keys `server`, `user`, `password` and `ca_cert` of a client.yaml as `lightway-server init` writes it.
    /// Raises IOException, or FormatException for a file without one of them.
    static member Read(clientYaml: string) : Target =
        let lines = File.ReadAllLines clientYaml

        let value (key: string) =
            match lines |> Array.tryFind _.StartsWith(key + ":") with
            | Some line -> line.Substring(key.Length + 1).Trim(' ', '"')
            | None -> raise (FormatException $"{clientYaml} has no {key}")

        let folder = Path.GetDirectoryName(Path.GetFullPath clientYaml)

        { Server = IPEndPoint.Parse(value "server")
          Ca = File.ReadAllBytes(Path.Combine(folder, value "ca_cert"))
          User = value "user"
          Password = value "password" }

/// How much of a pest, and for how long. It ends by itself.
type Plan =
    {
        /// Per second: datagrams, or connections, or logins, as the kind says.
        Rate: float
        Duration: TimeSpan
        /// Ends it before its time.
        Stop: CancellationToken
        /// Local addresses that datagrams come from, by turns; none: whichever the kernel chooses.
        Sources: IPAddress list
        /// Sockets, each with a port of its own, that a flood comes from.
        Ports: int
        /// Bytes of a datagram of garbage.
        Length: int
        /// Datagrams that leave in one send by UDP_SEGMENT.
        Burst: int
        /// Connections that are kept, the oldest giving way; at most 16 384.
        Standing: int
        /// Handshakes that are begun before the rate applies, as fast as they come to an end.
        Ahead: int
        /// Clients that share the rate, for kinds with a login.
        Clients: int
    }

    static member Standard: Plan =
        { Rate = 1_000.0
          Duration = TimeSpan.FromSeconds 10.0
          Stop = CancellationToken.None
          Sources = []
          Ports = 400
          Length = 300
          Burst = 32
          Standing = 12_000
          Ahead = 0
          Clients = 1 }

/// What a pest has done: one line.
type Tally =
    {
        /// Datagrams, connections or logins, as the kind counts.
        Sent: int64
        /// Datagrams that came back.
        Answers: int64
        /// What did not succeed: sends that the kernel refused, handshakes without an end, logins without an answer.
        Refused: int64
        Seconds: float
    }

    static member None: Tally =
        { Sent = 0L
          Answers = 0L
          Refused = 0L
          Seconds = 0.0 }

    member this.PerSecond: float = float this.Sent / max 0.001 this.Seconds

    override this.ToString() =
        $"{this.Sent} sent in {this.Seconds:F1} s ({this.PerSecond:F0} per second), {this.Answers} answers, {this.Refused} refused"

/// A rate and an end: how many are due. What a pause of more than 100 ms left undone is not made up for.
type internal Pace(plan: Plan) =
    let clock = Stopwatch.StartNew()
    let mutable due = 0.0
    let mutable at = 0.0

    member _.Seconds: float = clock.Elapsed.TotalSeconds

    member _.IsOver: bool =
        clock.Elapsed >= plan.Duration || plan.Stop.IsCancellationRequested

    /// Adds what the time since the last call is worth.
    member _.Advance() : unit =
        let now = clock.Elapsed.TotalSeconds
        due <- due + plan.Rate * min (now - at) 0.1
        at <- now

    /// Takes as many if they are due and time is left.
    member this.TryTake(count: int) : bool =
        let isDue = due >= float count && not this.IsOver

        if isDue then
            due <- due - float count

        isDue
