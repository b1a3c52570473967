namespace Lightway.Bench.Matrix

/// The carrier of the inside packets. The runs of the yardstick have one too: they are listed with those of Expresslane.
type Path =
    | Expresslane
    | Dtls
    | Tls // over TCP

type Direction =
    | Down // the remote sends, the client receives
    | Up

type Traffic =
    /// TCP connections, spread over the clients, each as fast as it can.
    | Tcp of flows: int
    /// Datagrams of 1200 bytes at a fixed rate, with the number of them per send of the sender.
    | Udp of burst: int
    /// Ping while TCP connections download.
    | Ping of flows: int

/// One field of the matrix: what is measured, whoever carries it.
type Cell =
    { Path: Path
      Direction: Direction
      Traffic: Traffic
      Clients: int }

    member this.PathName =
        match this.Path with
        | Expresslane -> "expresslane"
        | Dtls -> "dtls"
        | Tls -> "tls"

    member this.DirectionName =
        match this.Direction with
        | Down -> "down"
        | Up -> "up"

    member this.TrafficName =
        match this.Traffic with
        | Tcp 1 -> "tcp 1 flow"
        | Tcp flows -> $"tcp {flows} flows"
        | Udp 1 -> "udp 1200, singles"
        | Udp burst -> $"udp 1200, bursts of {burst}"
        | Ping flows -> $"ping, tcp {flows} flows"

    /// Unique; what `--cells` is matched against.
    member this.Name =
        let clients = if this.Clients = 1 then "" else $", {this.Clients} clients"
        $"{this.PathName} {this.DirectionName} {this.TrafficName}{clients}"

[<RequireQualifiedAccess>]
module Cell =
    /// Datagrams in one send of a QUIC server that sends by UDP_SEGMENT.
    [<Literal>]
    let QuicBurst = 16

    [<Literal>]
    let DatagramLength = 1200 // bytes: what QUIC sends before it knows the path (RFC 9000 section 14)

    /// The variant whose ends both seal by wolfCrypt, where "on" takes the fastest library.
    [<Literal>]
    let OnByWolfCrypt = "on, wolfcrypt"

    /// Rounds of which the medians of the two are taken: fewer say nothing.
    [<Literal>]
    let AeadRounds = 7

    /// Cells in which the libraries for AES-GCM are compared.
    let comparesAeads (cell: Cell) : bool =
        cell.Clients = 1 && cell.Traffic = Tcp 4 && cell.Path <> Tls

    /// All fields in the order of measuring. Those with the same path and number of clients share their programs.
    let all: Cell list =
        [ for path in [ Expresslane; Dtls; Tls ] do
              for direction in [ Down; Up ] do
                  for traffic in [ Tcp 1; Tcp 4; Udp QuicBurst; Udp 1 ] do
                      { Path = path
                        Direction = direction
                        Traffic = traffic
                        Clients = 1 }

              { Path = path
                Direction = Down
                Traffic = Ping 4
                Clients = 1 }

              for direction in [ Down; Up ] do
                  { Path = path
                    Direction = direction
                    Traffic = Tcp 4
                    Clients = 4 } ]
