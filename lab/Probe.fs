/// Round-trip times, measured by ping(8): the kernel answers at the far end and stamps the arrival here, so a busy
/// machine's scheduling is in them only where it is in the tunnel.
[<RequireQualifiedAccess>]
module Lightway.Lab.Probe

open System.Globalization
open System.Text.RegularExpressions

type RoundTrips = { Sent: int; Milliseconds: float list } // in the order of arrival

let private time = Regex(@"time=([0-9.]+) ms", RegexOptions.Compiled)
let private summary = Regex(@"(\d+) packets transmitted", RegexOptions.Compiled)

/// Echo requests, every `intervalMs` for `seconds`, from a namespace. Blocks for that time.
let roundTrips (netns: string) (address: string) (intervalMs: int) (seconds: float) : RoundTrips =
    let count = max 1 (int (seconds * 1000.0) / intervalMs)
    let interval = (float intervalMs / 1000.0).ToString CultureInfo.InvariantCulture

    let arguments =
        [ "netns"; "exec"; netns; "ping"; "-n"; "-i"; interval; "-W"; "1" ]
        @ [ "-c"; string count; "-w"; string (int (ceil seconds) + 1); address ]

    match Shell.tryRun "ip" arguments with
    | struct ((0 | 1), output, _) ->
        { Sent = int (summary.Match output).Groups[1].Value
          Milliseconds = [ for found in time.Matches output -> float found.Groups[1].Value ] }
    | struct (_, _, errors) -> raise (LabException $"ping {address}: {errors.Trim()}")
