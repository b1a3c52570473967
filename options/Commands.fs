namespace Lightway.Options

open System

/// What an operator asks of a running server, by its control socket.
type ControlCommand =
    | Status = 0
    | Sessions = 1
    /// End the sessions of `Target`.
    | Kick = 2
    /// Read the files again.
    | Reload = 3
    /// Take no new sessions, and end when the last one has gone.
    | Drain = 4

/// Options of `lightway-server status`, `sessions`, `kick`, `reload` and `drain`.
type ControlOptions =
    {
        Command: ControlCommand
        /// Path of the running server's control socket; fits into a sockaddr_un.
        Socket: string
        /// Print the server's answer as it is, for scripts.
        Json: bool
        /// Kick: a session id or the name of a user, not empty. Else empty.
        Target: string
        /// Drain: time after which the sessions that are left are ended.
        Deadline: TimeSpan
    }

/// What `lightway-server setup-host` does.
type HostAction =
    /// Show what `Apply` would do, as a shell script.
    | Print = 0
    | Apply = 1
    /// Take back what `Apply` has done.
    | Undo = 2

/// Options of `lightway-server setup-host`.
type HostOptions =
    {
        Action: HostAction
        /// The server's configuration file, of which the set-up takes device, address and network.
        ConfigFile: string
        /// Name of the device that leads to the Internet; null: that of the default route.
        Uplink: string | null
        /// The user that the server runs as; null: root.
        User: string | null
        /// Bytes, of the TUN device; 0: what fits the uplink.
        Mtu: int
        /// The clients reach other networks under the address of this host.
        Nat: bool
        ClientToClient: bool
        ClientToHost: bool
    }

[<RequireQualifiedAccess>]
module ControlSocket =
    /// Where the commands look for the socket, and where the packaged configuration has it.
    [<Literal>]
    let DefaultPath = "/run/lightway-server/control.sock"

    /// Bytes of a path in a sockaddr_un (linux/un.h, UNIX_PATH_MAX), less the NUL.
    [<Literal>]
    let MaxPath = 107

    let internal path: Parser<string> =
        Parser.make Shape.File id
        <| fun text ->
            if
                String.IsNullOrWhiteSpace text
                || Seq.exists Char.IsControl text
                || Text.Encoding.UTF8.GetByteCount text > MaxPath
            then
                Error $"a path of at most {MaxPath} bytes without control characters"
            else
                Ok text
