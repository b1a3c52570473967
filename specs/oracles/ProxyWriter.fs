/// The PROXY protocol as a sender has it, and a reader that only ever looks at whole headers. Text is text here, and
/// addresses are those of .NET.
module Lightway.Specs.Oracles.ProxyWriter

open System
open System.Net
open System.Text
open System.Text.RegularExpressions

/// Whom a header names: nobody, or address and port.
type Named = (IPAddress * int) option

let private word (value: int) = [| byte (value >>> 8); byte value |]

let signature = "\r\n\r\n\000\r\nQUIT\n"B

/// Version 2, field by field.
let binary (command: byte) (family: byte) (rest: byte[]) : byte[] =
    Array.concat [ signature; [| command; family |]; word rest.Length; rest ]

/// Addresses and ports of a version 2 header.
let addresses (source: IPAddress, sourcePort: int) (destination: IPAddress, destinationPort: int) : byte[] =
    Array.concat [ source.GetAddressBytes(); destination.GetAddressBytes(); word sourcePort; word destinationPort ]

let line (text: string) : byte[] = Encoding.Latin1.GetBytes text

let private octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])"
let private dotted = $"{octet}(?:[.]{octet}){{3}}"
let private isDotted = Regex($"^{dotted}\\z", RegexOptions.Compiled)
let private isGroup = Regex("^[0-9A-Fa-f]{1,4}\\z", RegexOptions.Compiled)

/// Groups of 16 bits that a part of an IPv6 address has; None if it is not such a part.
let private groupsOf (mayEndDotted: bool) (text: string) : int option =
    if text = "" then
        Some 0
    else
        let fields = text.Split ':'
        let last = Array.last fields
        let ends = mayEndDotted && isDotted.IsMatch last
        let plain = if ends then fields[.. fields.Length - 2] else fields

        if plain |> Array.forall (fun field -> isGroup.IsMatch field) then
            Some(plain.Length + (if ends then 2 else 0))
        else
            None

let isIPv6 (text: string) : bool =
    match text.Split("::", 2) with
    | [| all |] -> groupsOf true all = Some 8
    | [| front; back |] ->
        match groupsOf false front, groupsOf true back with
        | Some front, Some back -> front + back <= 7
        | _ -> false
    | _ -> false

let private tcp4 =
    Regex($"^PROXY TCP4 ({dotted}) {dotted} (0|[1-9][0-9]*) (0|[1-9][0-9]*)\r\n", RegexOptions.Compiled)

let private tcp6 =
    Regex("^PROXY TCP6 ([^ ]*) ([^ ]*) (0|[1-9][0-9]*) (0|[1-9][0-9]*)\r\n", RegexOptions.Compiled)

let private unknown = Regex("^PROXY UNKNOWN(?: [^\r]*)?\r\n", RegexOptions.Compiled)

let private isPort (text: string) = text.Length <= 5 && int text <= 65535

let private readLine (bytes: byte[]) : (int * Named) option =
    let text = Encoding.Latin1.GetString bytes
    let four, six, none = tcp4.Match text, tcp6.Match text, unknown.Match text

    let fields (found: Match) =
        [ for group in 1 .. found.Groups.Count - 1 -> found.Groups[group].Value ]

    let found =
        match four.Success, six.Success, none.Success with
        | true, _, _ ->
            match fields four with
            | [ source; port; other ] when isPort port && isPort other ->
                Some(four.Length, Some(IPAddress.Parse source, int port))
            | _ -> None
        | _, true, _ ->
            match fields six with
            | [ source; destination; port; other ] when
                isIPv6 source && isIPv6 destination && isPort port && isPort other
                ->
                Some(six.Length, Some(IPAddress.Parse source, int port))
            | _ -> None
        | _, _, true -> Some(none.Length, None)
        | _ -> None

    found |> Option.filter (fun (length, _) -> length <= 107)

/// Bytes of the addresses behind the fixed part; None for a header that must be refused.
let private addressBytes (command: byte) (family: byte) : int option =
    match command, family with
    | 0x20uy, _ -> Some 0
    | 0x21uy, 0x00uy -> Some 0
    | 0x21uy, 0x11uy -> Some 12
    | 0x21uy, 0x21uy -> Some 36
    | 0x21uy, 0x31uy -> Some 216
    | _ -> None

let private isFixed (command: byte) (family: byte) (length: int) =
    match addressBytes command family with
    | Some least -> least <= length && length <= 536 - 16
    | None -> false

let private readBinary (bytes: byte[]) : (int * Named) option =
    if bytes.Length < 16 || bytes[..11] <> signature then
        None
    else
        let command, family = bytes[12], bytes[13]
        let length = int bytes[14] * 256 + int bytes[15]

        if bytes.Length < 16 + length || not (isFixed command family length) then
            None
        else
            let named =
                match command, family with
                | 0x21uy, 0x11uy -> Some(IPAddress bytes[16..19], int bytes[24] * 256 + int bytes[25])
                | 0x21uy, 0x21uy -> Some(IPAddress bytes[16..31], int bytes[48] * 256 + int bytes[49])
                | _ -> None

            Some(16 + length, named)

/// The whole header at the start of `bytes`: its length and whom it names.
let read (bytes: byte[]) : (int * Named) option =
    readBinary bytes |> Option.orElseWith (fun () -> readLine bytes)

/// Ends of lines, one of which is the shortest that makes a line of any start of a line, if there is one.
let private ends =
    let numbers = [ ""; "0"; ".0"; "0.0"; ".0.0"; "0.0.0"; ".0.0.0"; "0.0.0.0" ]

    [ for whole in [ "PROXY UNKNOWN\r\n"; "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"; "PROXY TCP6 :: :: 0 0\r\n" ] do
          for at in 0 .. whole.Length - 1 do
              yield whole[at..]

      for address in numbers @ [ ":"; "::" ] do
          yield $"{address} 0.0.0.0 0 0\r\n"
          yield $"{address} :: 0 0\r\n"
          yield $"{address} 0 0\r\n"

      for port in [ ""; "0" ] do
          yield $"{port} 0\r\n"
          yield $"{port}\r\n" ]
    |> List.distinct
    |> List.sortBy _.Length
    |> List.map line

let private leastLine (start: byte[]) : int option =
    ends
    |> List.tryFind (fun rest ->
        match readLine (Array.append start rest) with
        | Some(length, _) -> length = start.Length + rest.Length
        | None -> false)
    |> Option.map _.Length

let private leastBinary (start: byte[]) : int option =
    let at index choices =
        if start.Length > index then [ start[index] ] else choices

    if start[.. min 11 (start.Length - 1)] <> signature[.. min 11 (start.Length - 1)] then
        None
    else
        [ for command in at 12 [ 0x20uy; 0x21uy ] do
              for family in at 13 [ 0x00uy; 0x11uy; 0x21uy; 0x31uy ] do
                  for high in at 14 [ 0uy; 1uy; 2uy ] do
                      for low in at 15 [ 0uy .. 255uy ] do
                          let length = int high * 256 + int low

                          if isFixed command family length && 16 + length > start.Length then
                              16 + length - start.Length ]
        |> function
            | [] -> None
            | found -> Some(List.min found)

/// Bytes of the shortest rest that makes a header of `start`, which is not one yet; None if no rest does.
let least (start: byte[]) : int option =
    if start.Length = 0 then
        Some 15
    else
        List.choose id [ leastBinary start; leastLine start ]
        |> function
            | [] -> None
            | found -> Some(List.min found)
