namespace Lightway.Options

open System
open System.Globalization

/// What systemd wants to be told, as it says in a service's environment (sd_notify(3), sd_watchdog_enabled(3)).
[<Struct; NoComparison>]
type ServiceManager =
    {
        /// Datagram socket that takes messages: a path, or a name behind a NUL character for an abstract one (unix(7)).
        /// Empty: nobody listens.
        Socket: string
        /// Milliseconds within which the watchdog must hear of the service; 0: there is no watchdog.
        WatchdogMs: int64
    }

[<RequireQualifiedAccess>]
module ServiceManager =
    /// Bytes of a path in a sockaddr_un (linux/un.h, UNIX_PATH_MAX), less the NUL.
    let private maxPath = 107

    let none: ServiceManager = { Socket = ""; WatchdogMs = 0L }

    /// Digits only, as sd_watchdog_enabled(3) takes them.
    let private number (text: string | null) : uint64 voption =
        match UInt64.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture) with
        | true, value -> ValueSome value
        | _ -> ValueNone

    let private socket (address: string | null) : string =
        match address with
        | null -> ""
        | address when address.Length < 2 || Text.Encoding.UTF8.GetByteCount address > maxPath -> ""
        | address when address[0] = '/' -> address
        | address when address[0] = '@' -> "\000" + address.Substring 1
        | _ -> "" // vsock and whatever may come: not for a Unix socket

    /// NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID of the environment; what is not valid is as if it were not there.
    let read (getEnv: Func<string, string | null>) (processId: int) : ServiceManager =
        let isOurs =
            match getEnv.Invoke "WATCHDOG_PID" with
            | null -> true
            | text -> number text = ValueSome(uint64 processId) // else it is our parent that is watched

        { Socket = socket (getEnv.Invoke "NOTIFY_SOCKET")
          WatchdogMs =
            match number (getEnv.Invoke "WATCHDOG_USEC") with
            | ValueSome microseconds when isOurs && microseconds >= 1000UL ->
                int64 (min (microseconds / 1000UL) (uint64 Int32.MaxValue))
            | _ -> 0L }

    /// Milliseconds between two looks at the workers. Four in the watchdog's time: one may come late, and one may be lost.
    let period (manager: ServiceManager) : int64 = max 1L (manager.WatchdogMs / 4L)

    /// Whether the watchdog is to be told that all is well: each worker has come by within half of its time. A worker
    /// that hangs is noticed after at most one and a half times `WatchdogMs`.
    /// seen: when each worker came by last, ms of the clock that `now` is of; in the future: now.
    let isAlive (manager: ServiceManager) (seen: ReadOnlySpan<int64>) (now: int64) : bool =
        let limit = max 1L (manager.WatchdogMs / 2L)
        let mutable alive = true

        for time in seen do
            if now - time > limit then
                alive <- false

        alive

    /// One message of `NAME=value` lines (sd_notify(3)). A status is one line: line breaks in it become spaces.
    let message (state: string) (status: string) : string =
        let status = status.ReplaceLineEndings " "

        match state, status with
        | "", status -> $"STATUS={status}"
        | state, "" -> state
        | state, status -> $"{state}\nSTATUS={status}"
