namespace Lightway.Options

open System
open System.Collections.Generic
open System.Globalization
open System.IO
open System.Net
open Lightway.Segmenter

/// The transport that carries the tunnel.
type TransportMode =
    | Tcp = 0
    | Udp = 1
    /// A server only.
    | Both = 2

type LogLevel =
    | Trace = 0
    | Debug = 1
    | Info = 2
    | Warn = 3
    | Error = 4
    | Off = 5

type LogFormat =
    | Full = 0
    | Compact = 1
    | Pretty = 2
    | Json = 3

/// What an option takes, as far as editors, shells and generated pages need to know it.
[<RequireQualifiedAccess>]
type internal Shape =
    | Bool
    /// A whole number, both ends included.
    | Number of low: int64 * high: int64
    /// One of a few words.
    | Word of words: string list
    /// Text that the regular expression (of ECMA-262) matches; "" for any text. It may match more than the parser accepts.
    | Text of pattern: string
    | File
    /// Text that no page and no log shows.
    | Secret
    | Duration
    | Size
    /// A list of the file, or values separated by commas.
    | List of items: Shape
    /// A map of the file. The keys match the regular expression.
    | Map of keys: string * values: Shape
    | Either of Shape list
    /// A value that is not looked at.
    | Any

/// Turns the text of one option into its value and back.
[<NoComparison; NoEquality>]
type internal Parser<'T> =
    {
        /// `Error` names the allowed values; messages put "allowed: " before it. Law: it never raises.
        Parse: string -> Result<'T, string>
        /// Law: parsing the text gives the value again, unless the shape is Secret.
        Show: 'T -> string
        /// Law: what `Show` returns has this shape.
        Shape: Shape
    }

[<RequireQualifiedAccess>]
module internal Parser =
    let make (shape: Shape) (show: 'T -> string) (parse: string -> Result<'T, string>) : Parser<'T> =
        { Parse = parse
          Show = show
          Shape = shape }

    /// Accepts less than `parser`: values for which `isAllowed` is true.
    let restrict (isAllowed: 'T -> bool) (allowed: string) (parser: Parser<'T>) : Parser<'T> =
        { parser with
            Parse =
                fun text ->
                    match parser.Parse text with
                    | Ok value when isAllowed value -> Ok value
                    | _ -> Error allowed }

[<RequireQualifiedAccess>]
module internal Value =
    let private ipv4Pattern = @"\d{1,3}(\.\d{1,3}){3}"

    let private whole (low: bigint) (high: bigint) (text: string) : bigint voption =
        let parsed, value =
            if text.StartsWith("0x", StringComparison.OrdinalIgnoreCase) then
                // The leading 0 keeps the highest digit from being read as a sign.
                bigint.TryParse("0" + text.Substring 2, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture)
            else
                bigint.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture)

        if parsed && low <= value && value <= high then
            ValueSome value
        else
            ValueNone

    let text: Parser<string> = Parser.make (Shape.Text "") id Ok

    let private notBlank (what: string) (text: string) =
        if String.IsNullOrWhiteSpace text then
            Error $"{what} (it is empty)"
        else
            Ok text

    /// A name that must not be empty.
    let nonEmpty (what: string) : Parser<string> =
        Parser.make (Shape.Text "") id (notBlank what)

    /// The path of a file.
    let path: Parser<string> = Parser.make Shape.File id (notBlank "a file path")

    /// A password or the like: neither pages nor logs show it.
    let secret (what: string) : Parser<string> =
        Parser.make Shape.Secret (fun _ -> "(hidden)") (notBlank what)

    let boolean: Parser<bool> =
        Parser.make Shape.Bool (fun value -> if value then "true" else "false")
        <| fun text ->
            match text.ToLowerInvariant() with
            | "true"
            | "yes"
            | "on"
            | "1" -> Ok true
            | "false"
            | "no"
            | "off"
            | "0" -> Ok false
            | _ -> Error "true or false"

    /// A whole number, decimal or 0x…, from `low` to `high`, both included.
    let number (low: int64) (high: int64) : Parser<int64> =
        Parser.make (Shape.Number(low, high)) string
        <| fun text ->
            match whole (bigint low) (bigint high) text with
            | ValueSome value -> Ok(int64 value)
            | ValueNone -> Error $"a whole number from {low} to {high}"

    let int32 (low: int) (high: int) : Parser<int> =
        let number = number (int64 low) (int64 high)
        Parser.make number.Shape string (number.Parse >> Result.map int)

    /// One of a few words, in lower case. Each stands for another value.
    let oneOf (choices: (string * 'T) list) : Parser<'T> =
        Parser.make (Shape.Word(List.map fst choices)) (fun value ->
            choices |> List.find (fun (_, choice) -> choice = value) |> fst)
        <| fun text ->
            match choices |> List.tryFind (fun (name, _) -> name = text) with
            | Some(_, value) -> Ok value
            | None -> choices |> List.map fst |> String.concat ", " |> Error

    let mode: Parser<TransportMode> =
        oneOf [ "tcp", TransportMode.Tcp; "udp", TransportMode.Udp ]

    let serverMode: Parser<TransportMode> =
        oneOf [ "tcp", TransportMode.Tcp; "udp", TransportMode.Udp; "both", TransportMode.Both ]

    let logLevel: Parser<LogLevel> =
        oneOf
            [ "trace", LogLevel.Trace
              "debug", LogLevel.Debug
              "info", LogLevel.Info
              "warn", LogLevel.Warn
              "error", LogLevel.Error
              "off", LogLevel.Off ]

    let logFormat: Parser<LogFormat> =
        oneOf
            [ "full", LogFormat.Full
              "compact", LogFormat.Compact
              "pretty", LogFormat.Pretty
              "json", LogFormat.Json ]

    let ipv4: Parser<IPAddress> =
        Parser.make (Shape.Text $"^{ipv4Pattern}$") string
        <| fun text ->
            match IPAddress.TryParse text with
            // IPAddress also accepts "1", "0x7f.1" and the like; an operator means the form that it prints.
            | true, NonNull address when address.ToString() = text && address.GetAddressBytes().Length = 4 -> Ok address
            | _ -> Error "an IPv4 address such as 10.125.0.1"

    let endPoint: Parser<IPEndPoint> =
        Parser.make (Shape.Text(@"^(" + ipv4Pattern + @"|\[[0-9A-Fa-f:.%]+\]):\d{1,5}$")) string
        <| fun text ->
            let allowed = Error "address:port such as 0.0.0.0:27690 or [::]:27690"

            match IPEndPoint.TryParse text with
            // TryParse reads a missing port as 0; binding to 0 would pick a random port, which no client could know.
            | true, NonNull value when value.Port <> 0 ->
                match value.Address.AddressFamily with
                | Sockets.AddressFamily.InterNetwork when not (text.StartsWith($"{value.Address}:")) -> allowed
                | _ -> Ok value
            | _ -> allowed

    /// An address and a port, or a port of 127.0.0.1.
    let localEndPoint: Parser<IPEndPoint> =
        let shape = Shape.Either [ endPoint.Shape; Shape.Number(1L, 65535L) ]

        Parser.make shape string
        <| fun text ->
            match whole 1I 65535I text, endPoint.Parse text with
            | ValueSome port, _ when Seq.forall Char.IsAsciiDigit text -> Ok(IPEndPoint(IPAddress.Loopback, int port))
            | _, Ok value -> Ok value
            | _ -> Error "address:port such as 127.0.0.1:9100 or [::1]:9100, or a port of 127.0.0.1 such as 9100"

    /// A file, or `unix:` and the absolute path of a socket.
    let accounting: Parser<string> =
        Parser.make Shape.File id
        <| fun text ->
            let isSocket = text.StartsWith("unix:", StringComparison.Ordinal)

            if String.IsNullOrWhiteSpace text || (isSocket && not (text.StartsWith "unix:/")) then
                Error "a file path, or unix:/path of a Unix datagram socket"
            else
                Ok text

    /// Characters of a DNS name (RFC 1035 §2.3.4: 255 octets with the length of each label); the resolver raises beyond it.
    let private maxNameLength = 253

    /// `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets (which are taken off).
    let hostPort: Parser<struct (string * int)> =
        Parser.make (Shape.Text @"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):\d{1,5}$") (fun struct (host, port) ->
            if host.Contains ':' then
                $"[{host}]:{port}"
            else
                $"{host}:{port}")
        <| fun text ->
            let colon = text.LastIndexOf ':'

            let port =
                if colon < 0 then
                    ValueNone
                else
                    whole 1I 65535I (text.Substring(colon + 1))

            let host = text.Substring(0, max colon 0)
            let isLiteral = host.StartsWith '[' && host.EndsWith ']'
            let bare = host.Trim('[', ']')

            match port, Uri.CheckHostName bare with
            | ValueSome port, UriHostNameType.IPv6 when isLiteral -> Ok struct (bare, int port)
            | ValueSome port, (UriHostNameType.Dns | UriHostNameType.IPv4) when
                bare = host && bare.Length <= maxNameLength
                ->
                Ok struct (bare, int port)
            | _ -> Error "host:port such as vpn.example.com:27690, 192.0.2.1:27690 or [2001:db8::1]:27690"

    /// An IPv4 network whose prefix is from `shortest` to `longest` bits; host bits are cleared.
    let ipv4Network (shortest: int) (longest: int) : Parser<IPNetwork> =
        Parser.make (Shape.Text(@"^" + ipv4Pattern + @"/\d{1,2}$")) string
        <| fun text ->
            let slash = text.IndexOf '/'
            let address = ipv4.Parse(text.Substring(0, max slash 0))

            match address, whole (bigint shortest) (bigint longest) (text.Substring(slash + 1)) with
            | Ok address, ValueSome length ->
                let length = int length
                let mask = uint32 (UInt32.MaxValue <<< (32 - length)) // length is at least 1: the shift is at most 31
                let first = Ipv4Address((Ipv4Address.Of address).Value &&& mask)
                Ok(IPNetwork(first.ToIPAddress(), length))
            | _ -> Error $"an IPv4 network such as 10.125.0.0/16, with a prefix from /{shortest} to /{longest}"

    /// The first `length` bits, then zeros.
    let private withoutHostBits (address: IPAddress) (length: int) : IPAddress =
        let bytes = address.GetAddressBytes()

        for at in 0 .. bytes.Length - 1 do
            let bits = max 0 (min 8 (length - 8 * at)) // bits of this byte that remain
            bytes[at] <- bytes[at] &&& byte (0xFF00 >>> bits)

        IPAddress bytes

    /// An IPv4 or IPv6 network, or a single address; host bits are cleared.
    let network: Parser<IPNetwork> =
        Parser.make (Shape.Text @"^[0-9A-Fa-f:.]+(/\d{1,3})?$") string
        <| fun text ->
            let address, prefix =
                match text.IndexOf '/' with
                | -1 -> text, None
                | slash -> text.Substring(0, slash), Some(text.Substring(slash + 1))

            let parsed =
                match ipv4.Parse address, IPAddress.TryParse address with
                | Ok address, _ -> Some address
                | _, (true, NonNull other) when other.AddressFamily = Sockets.AddressFamily.InterNetworkV6 ->
                    if String.exists (fun letter -> letter = '%' || letter = '[') address then
                        None
                    else
                        Some other
                | _ -> None

            let found =
                parsed
                |> Option.bind (fun address ->
                    let most = 8 * address.GetAddressBytes().Length

                    match prefix |> Option.map (whole 0I (bigint most)) with
                    | None -> Some(IPNetwork(address, most))
                    | Some(ValueSome length) -> Some(IPNetwork(withoutHostBits address (int length), int length))
                    | Some ValueNone -> None)

            match found with
            | Some network -> Ok network
            | None -> Error "a network or an address such as 192.0.2.0/24, 2001:db8::/32 or 192.0.2.1"

    /// Name of a network interface: 15 bytes at most (IFNAMSIZ of linux/if.h less the NUL), no slash, no white space.
    let interfaceName: Parser<string> =
        Parser.make (Shape.Text "^[!-.0-~]{1,15}$") id
        <| fun text ->
            let isBad character =
                Char.IsWhiteSpace character || Char.IsControl character || character = '/' || character > '~'

            if text = "" || text.Length > 15 || text = "." || text = ".." || String.exists isBad text then
                Error "an interface name of 1 to 15 ASCII characters without '/' and white space"
            else
                Ok text

    /// One number with optional fraction, its unit, and the rest of the text.
    let private quantity (text: string) : (decimal * string * string) voption =
        let text = text.TrimStart()

        let isNumber character =
            Char.IsAsciiDigit character || character = '.'

        let digits = text |> Seq.takeWhile isNumber |> Seq.length
        let rest = text.Substring(digits).TrimStart()
        let letters = rest |> Seq.takeWhile Char.IsAsciiLetter |> Seq.length

        match
            Decimal.TryParse(text.Substring(0, digits), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture)
        with
        | true, value -> ValueSome(value, rest.Substring(0, letters), rest.Substring letters)
        | _ -> ValueNone

    let private nanoseconds (unit: string) : decimal voption =
        match unit with
        | "ns"
        | "nsec"
        | "nanos" -> ValueSome 1m
        | "us"
        | "usec"
        | "micros" -> ValueSome 1_000m
        | "ms"
        | "msec"
        | "millis" -> ValueSome 1_000_000m
        | "s"
        | "sec"
        | "secs"
        | "second"
        | "seconds" -> ValueSome 1_000_000_000m
        | "m"
        | "min"
        | "mins"
        | "minute"
        | "minutes" -> ValueSome 60_000_000_000m
        | "h"
        | "hr"
        | "hrs"
        | "hour"
        | "hours" -> ValueSome 3_600_000_000_000m
        | "d"
        | "day"
        | "days" -> ValueSome 86_400_000_000_000m
        | "w"
        | "wk"
        | "wks"
        | "week"
        | "weeks" -> ValueSome 604_800_000_000_000m
        | _ -> ValueNone

    /// Longer durations are refused, so that a duration fits every timer and every sum with a clock.
    let private maxNanoseconds = 3_155_760_000_000_000_000m // 100 years

    let private showDuration (value: TimeSpan) : string =
        let parts =
            [ value.Ticks / TimeSpan.TicksPerHour, "h"
              int64 value.Minutes, "m"
              int64 value.Seconds, "s"
              int64 value.Milliseconds, "ms"
              int64 value.Microseconds, "us"
              int64 value.Nanoseconds, "ns" ]

        match
            [ for count, unit in parts do
                  if count > 0L then
                      $"{count}{unit}" ]
        with
        | [] -> "0s"
        | parts -> String.concat " " parts

    /// `15m`, `1h 30m`, `500ms`: whole numbers with a unit from ns to w, added up. A lone `0` is allowed.
    /// The value is cut to 100 ns, the resolution of TimeSpan.
    let duration: Parser<TimeSpan> =
        Parser.make Shape.Duration showDuration
        <| fun text ->
            let allowed =
                Error "a duration with its units, such as 15m, 1h 30m or 500ms (units ns, us, ms, s, m, h, d, w)"

            let rec add (total: decimal) (rest: string) =
                if total > maxNanoseconds then
                    allowed
                elif String.IsNullOrWhiteSpace rest then
                    Ok(TimeSpan.FromTicks(int64 (total / 100m)))
                else
                    match quantity rest with
                    | ValueSome(value, unit, rest) when value <= maxNanoseconds && value = Decimal.Truncate value ->
                        match nanoseconds unit with
                        | ValueSome scale -> add (total + value * scale) rest
                        | ValueNone -> allowed
                    | _ -> allowed

            if text.Trim() = "0" then Ok TimeSpan.Zero
            elif String.IsNullOrWhiteSpace text then allowed
            else add 0m text

    /// A duration of at most one second.
    let burst: Parser<TimeSpan> =
        duration
        |> Parser.restrict
            (fun value -> value <= TimeSpan.FromSeconds 1L)
            "a duration of up to 1s, such as 1ms or 500us, or 0s"

    /// A duration of at least one millisecond, the resolution of the timers.
    let positiveDuration: Parser<TimeSpan> =
        { duration with
            Parse =
                fun text ->
                    match duration.Parse text with
                    | Ok value when value < TimeSpan.FromMilliseconds 1L -> Error "a duration of at least 1ms"
                    | result -> result }

    let private bytesOf (unit: string) : decimal voption =
        match unit.ToLowerInvariant() with
        | ""
        | "b" -> ValueSome 1m
        | "k"
        | "kb" -> ValueSome 1e3m
        | "m"
        | "mb" -> ValueSome 1e6m
        | "g"
        | "gb" -> ValueSome 1e9m
        | "ki"
        | "kib" -> ValueSome 1024m
        | "mi"
        | "mib" -> ValueSome 1_048_576m
        | "gi"
        | "gib" -> ValueSome 1_073_741_824m
        | _ -> ValueNone

    let private showSize (bytes: int) : string =
        [ 1 <<< 30, "GiB"; 1 <<< 20, "MiB"; 1 <<< 10, "KiB" ]
        |> List.tryFind (fun (unit, _) -> bytes % unit = 0)
        |> function
            | Some(unit, name) -> $"{bytes / unit} {name}"
            | None -> string bytes

    /// `1500`, `15 MiB`, `8MB`, `1.5k`: bytes, from 1 to 2^31-1, the range of a socket option.
    let byteSize: Parser<int> =
        Parser.make Shape.Size showSize
        <| fun text ->
            let limit = decimal Int32.MaxValue

            let bytes =
                match quantity text with
                | ValueSome(value, unit, rest) when value <= limit && String.IsNullOrWhiteSpace rest ->
                    bytesOf unit |> ValueOption.map (fun scale -> Decimal.Truncate(value * scale))
                | _ -> ValueNone

            match bytes with
            | ValueSome bytes when bytes >= 1m && bytes <= limit -> Ok(int bytes)
            | _ -> Error "a size from 1 B to 2 GiB, such as 1500, 64 KiB, 8MB or 15 MiB"
