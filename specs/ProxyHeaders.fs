/// The PROXY protocol (HAProxy's proxy-protocol.txt, §2.1 and §2.2), read as its bytes arrive.
module Lightway.Specs.ProxyHeaders

open System
open System.Buffers.Binary
open System.Net
open System.Text
open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

let private parse (bytes: byte[]) = ProxyHeader.parse (ReadOnlySpan bytes)

/// The source as .NET has it.
let private named (header: ProxyHeader) : ProxyWriter.Named =
    if header.Status <> ProxyStatus.Address then
        None
    else
        let bytes: byte[] = Array.zeroCreate 16
        BinaryPrimitives.WriteUInt64BigEndian(Span bytes, header.High)
        BinaryPrimitives.WriteUInt64BigEndian(Span(bytes, 8, 8), header.Low)

        if header.IsIPv6 then
            Some(IPAddress bytes, int header.Port)
        elif header.High = 0UL && header.Low <= uint64 UInt32.MaxValue then
            Some(IPAddress bytes[12..], int header.Port)
        else
            failtest "not an IPv4 address"

/// What the oracle says: the header, how much of one is missing, or that there is none.
let private agrees (bytes: byte[]) : bool =
    let header = parse bytes

    match ProxyWriter.read bytes with
    | Some(length, expected) ->
        header.Length = length
        && named header = expected
        && (header.Status = ProxyStatus.NoAddress) = expected.IsNone
        && header.Error = ProxyError.None
    | None ->
        match ProxyWriter.least bytes with
        | Some missing ->
            header.Status = ProxyStatus.NeedMore && header.Length = missing && header.Error = ProxyError.None
        | None -> header.Status = ProxyStatus.Wrong && header.Length = 0 && header.Error <> ProxyError.None

/// Text of an address in one of the ways that RFC 4291 §2.2 allows.
let private spelling (random: System.Random) (address: IPAddress) : string =
    let bytes = address.GetAddressBytes()

    if bytes.Length = 4 then
        string address
    else
        let text =
            match random.Next 4 with
            | 0 -> String.Join(':', [ for at in 0..2..14 -> (word bytes at).ToString "x4" ])
            | 1 -> String.Join(':', [ for at in 0..2..14 -> (word bytes at).ToString "x" ])
            | 2 ->
                String.Join(':', [ for at in 0..2..10 -> (word bytes at).ToString "x" ])
                + $":{IPAddress bytes[12..]}"
            | _ -> string address // with "::", and dotted decimal for some

        if random.Next 2 = 0 then text.ToUpperInvariant() else text

let private anyAddress (random: System.Random) (isIPv6: bool) : IPAddress =
    let bytes: byte[] = Array.zeroCreate (if isIPv6 then 16 else 4)
    random.NextBytes bytes

    // Zeros in a row, at any place.
    if isIPv6 && random.Next 4 > 0 then
        let from = 2 * random.Next 8
        Array.fill bytes from (2 * random.Next(1 + (16 - from) / 2)) 0uy

    if isIPv6 && random.Next 6 = 0 then
        Array.fill bytes 0 10 0uy
        Array.fill bytes 10 2 0xFFuy

    for at in 0 .. bytes.Length - 1 do
        if random.Next 6 = 0 then
            bytes[at] <- byte (random.Next 10)

    IPAddress bytes

let private anyPort (random: System.Random) =
    match random.Next 4 with
    | 0 -> random.Next 11
    | 1 -> 65535 - random.Next 3
    | _ -> random.Next 65536

/// A good header, and whom it names.
let private anyHeader (seed: int) : byte[] * ProxyWriter.Named =
    let random = System.Random seed
    let isIPv6 = random.Next 2 = 0

    let source, destination =
        (anyAddress random isIPv6, anyPort random), (anyAddress random isIPv6, anyPort random)

    let bytesAtMost most =
        filled
            (Random seed)
            (if random.Next 8 = 0 then
                 most
             else
                 random.Next(1 + min 60 most))

    match random.Next 8 with
    | 0 ->
        let family =
            match random.Next 4 with
            | 0 -> 0x11uy
            | 1 -> 0x21uy
            | _ -> byte (random.Next 256)

        ProxyWriter.binary 0x20uy family (bytesAtMost 520), None
    | 1 -> ProxyWriter.binary 0x21uy 0x00uy (bytesAtMost 520), None
    | 2 -> ProxyWriter.binary 0x21uy 0x31uy (Array.append (Array.zeroCreate 216) (bytesAtMost 304)), None
    | 3
    | 4 ->
        let addresses = ProxyWriter.addresses source destination
        let tlvs = bytesAtMost (520 - addresses.Length)
        ProxyWriter.binary 0x21uy (if isIPv6 then 0x21uy else 0x11uy) (Array.append addresses tlvs), Some source
    | 5 ->
        let rest =
            match random.Next 4 with
            | 0 -> ""
            | 1 -> $" {spelling random (fst source)} {spelling random (fst destination)} 1 2"
            | _ -> String.init (random.Next 92) (fun at -> if at = 0 then " " else string (char (random.Next(14, 256))))

        ProxyWriter.line $"PROXY UNKNOWN{rest}\r\n", None
    | _ ->
        let text =
            $"PROXY TCP{if isIPv6 then 6 else 4} {spelling random (fst source)} {spelling random (fst destination)} {snd source} {snd destination}\r\n"

        if text.Length > 107 then
            ProxyWriter.line "PROXY UNKNOWN\r\n", None
        else
            ProxyWriter.line text, Some source

/// Bytes that mean something somewhere in a header.
let private letters =
    "PROXYTCP46UNKN 0123456789abcdefFG.::: \r\n\000\r\nQUIT\n"B
    |> Array.append [| 0x20uy; 0x21uy; 0x11uy; 0x31uy; 0x12uy; 0xFFuy; 0x02uy; 0x03uy |]

/// A header with a fault or two, most of the time.
let private damaged (seed: int) : byte[] =
    let random = System.Random seed
    let header, _ = anyHeader seed
    let mutable bytes = Array.truncate 120 header

    for _ in 0 .. random.Next 3 do
        let at = random.Next bytes.Length
        let letter = letters[random.Next letters.Length]

        bytes <-
            match random.Next 4 with
            | 0 -> Array.insertAt at letter bytes
            | 1 when bytes.Length > 1 -> Array.removeAt at bytes
            | 2 -> Array.insertManyAt at bytes[at .. at + random.Next 5] bytes
            | _ -> Array.updateAt at letter bytes

    if bytes.Length > 0 && header.Length > 120 && random.Next 2 = 0 then
        Array.append bytes header[120..]
    else
        bytes

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 1_000
        arbitrary = [ typeof<SeedArbitrary> ] }

let private properties =
    [ testPropertyWithConfig config "a header names whom its sender meant, whatever follows it"
      <| fun (Seed seed) (follows: byte[]) ->
          let bytes, expected = anyHeader seed
          let placed = place (seed % 64) (Array.append bytes follows)
          let header = ProxyHeader.parse placed.ReadOnly
          header.Length = bytes.Length && named header = expected && parse bytes = header

      testPropertyWithConfig
          { config with maxTest = 300 }
          "of a header cut anywhere, what is missing is what the shortest header with this start lacks"
      <| fun (Seed seed) ->
          let bytes, _ = anyHeader seed

          Seq.forall
              (fun length -> agrees (Array.truncate length bytes))
              (Seq.append (seq { 0 .. min 120 bytes.Length }) (seq { bytes.Length - 1 .. bytes.Length }))

      testPropertyWithConfig config "a reader that asks for what is missing reads the header and nothing behind it"
      <| fun (Seed seed) ->
          let bytes, expected = anyHeader seed

          let rec read (length: int) (turns: int) =
              let header = parse bytes[.. length - 1]

              match header.Status with
              | ProxyStatus.NeedMore when header.Length > 0 && length + header.Length <= bytes.Length && turns < 100 ->
                  read (length + header.Length) (turns + 1)
              | ProxyStatus.Address
              | ProxyStatus.NoAddress ->
                  length = bytes.Length && named header = expected && (bytes[0] <> 0x0Duy || turns <= 4)
              | _ -> false

          read 0 0

      testPropertyWithConfig
          { config with maxTest = 300 }
          "bytes are refused exactly as soon as no header starts with them"
      <| fun (Seed seed) ->
          let bytes = damaged seed
          Seq.forall (fun length -> agrees (Array.truncate length bytes)) (seq { 0 .. min 130 bytes.Length })

      testPropertyWithConfig config "what is wrong stays wrong for the same reason, and what is whole stays whole"
      <| fun (Seed seed) (follows: byte[]) ->
          let bytes = damaged seed

          Seq.forall
              (fun length ->
                  let now = parse bytes[.. length - 1]
                  let later = parse (Array.append bytes[.. length - 1] follows)
                  now.Status = ProxyStatus.NeedMore || now = later)
              (seq { 0 .. bytes.Length })

      testPropertyWithConfig config "any bytes have an answer"
      <| fun (bytes: byte[]) (isLine: bool) ->
          agrees bytes && agrees (Array.append (if isLine then "PROXY "B else ProxyWriter.signature) bytes) ]

let private refused (error: ProxyError) (bytes: byte[]) =
    let header = parse bytes
    Expect.equal (header.Status, header.Error) (ProxyStatus.Wrong, error) (Convert.ToHexString bytes)

/// The line is refused with its last byte and not before.
let private refusedAtLast (error: ProxyError) (text: string) =
    let bytes = ProxyWriter.line text
    refused error bytes
    Expect.equal (parse bytes[.. bytes.Length - 2]).Status ProxyStatus.NeedMore $"all but the last byte of {text}"

let private cases =
    [ testCase "§2.1: lines that are refused with their last byte"
      <| fun () ->
          for error, text in
              [ ProxyError.Signature, "G"
                ProxyError.Signature, "PROXX"
                ProxyError.Signature, "PROXY\t"
                ProxyError.Family, "PROXY t"
                ProxyError.Family, "PROXY TCP5"
                ProxyError.Family, "PROXY UNKNOWNS"
                ProxyError.Family, "PROXY TCQ"
                ProxyError.Address, "PROXY TCP4 01"
                ProxyError.Address, "PROXY TCP4 256"
                ProxyError.Address, "PROXY TCP4 1.2.3 "
                ProxyError.Address, "PROXY TCP4 1.2.3.4."
                ProxyError.Address, "PROXY TCP4  "
                ProxyError.Address, "PROXY TCP4 1.."
                ProxyError.Address, "PROXY TCP4 :"
                ProxyError.Address, "PROXY TCP4 1.2.3.4 x"
                ProxyError.Address, "PROXY TCP6 ::g"
                ProxyError.Address, "PROXY TCP6 12345"
                ProxyError.Address, "PROXY TCP6 1::2::"
                ProxyError.Address, "PROXY TCP6 :::"
                ProxyError.Address, "PROXY TCP6 :1"
                ProxyError.Address, "PROXY TCP6 1:2:3:4:5:6:7:8:"
                ProxyError.Address, "PROXY TCP6 1:2:3:4:5:6:7 "
                ProxyError.Address, "PROXY TCP6 1::2:3:4:5:6:7:"
                ProxyError.Address, "PROXY TCP6 1:2:3:4:5:1."
                ProxyError.Address, "PROXY TCP6 1::2:3:4:5:6:1."
                ProxyError.Address, "PROXY TCP6 ::ff."
                ProxyError.Address, "PROXY TCP6 ::01."
                ProxyError.Address, "PROXY TCP6 ::1.2.3.256"
                ProxyError.Address, "PROXY TCP6 ::1%"
                ProxyError.Address, "PROXY TCP6 ["
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 00"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 65536"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 100000"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 +"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1\r"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 00"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 "
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 \r"
                ProxyError.Port, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"
                ProxyError.LineEnd, "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r"
                ProxyError.LineEnd, "PROXY UNKNOWN\r "
                ProxyError.LineEnd, "PROXY UNKNOWN anything\r\r" ] do
              refusedAtLast error text

      testCase "§2.1: a line has 107 bytes at most, and is refused once it cannot end by then"
      <| fun () ->
          let rest length = String('x', length)
          let longest = ProxyWriter.line $"PROXY UNKNOWN {rest 91}\r\n"
          Expect.equal longest.Length 107 "length"
          Expect.equal (parse longest).Length 107 "accepted"
          refusedAtLast ProxyError.TooLong $"PROXY UNKNOWN {rest 92}"
          let six = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255" // 45 characters
          refusedAtLast ProxyError.TooLong $"PROXY TCP6 {six} {six}"

      testCase "§2.1: the longest lines of each protocol, and the shortest"
      <| fun () ->
          let six = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

          for text, expected in
              [ "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Some(IPAddress.Broadcast, 65535)
                $"PROXY TCP6 {six} {six} 65535 65535\r\n", Some(IPAddress.Parse six, 65535)
                $"PROXY UNKNOWN {six} {six} 65535 65535\r\n", None
                "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Some(IPAddress.Any, 0)
                "PROXY TCP6 :: :: 0 0\r\n", Some(IPAddress.IPv6Any, 0)
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 443 1\r\n", Some(IPAddress.Parse "::ffff:192.0.2.1", 443)
                "PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2\r\n", Some(IPAddress.Parse "1:2:3:4:5:6:7:0", 1)
                "PROXY UNKNOWN\r\n", None ] do
              let header = parse (ProxyWriter.line text)
              Expect.equal (header.Length, named header) (text.Length, expected) text

      testCase "§2.2: binary headers that are refused with their last byte"
      <| fun () ->
          let start (rest: string) =
              Array.append ProxyWriter.signature (hex rest)

          for error, bytes in
              [ ProxyError.Signature, hex "0D0A0D0A000D0A51554954 0D"
                ProxyError.Signature, hex "0D0D"
                ProxyError.Version, start "11"
                ProxyError.Version, start "31"
                ProxyError.Command, start "22"
                ProxyError.Command, start "2F"
                ProxyError.Family, start "21 12" // UDP
                ProxyError.Family, start "21 22"
                ProxyError.Family, start "21 10"
                ProxyError.Family, start "21 01"
                ProxyError.Family, start "21 41"
                ProxyError.Length, start "21 11 00 0B"
                ProxyError.Length, start "21 21 00 23"
                ProxyError.Length, start "21 31 00 D7"
                ProxyError.TooLong, start "20 00 02 09"
                ProxyError.TooLong, start "21 11 02 09"
                ProxyError.TooLong, start "21 11 03" ] do
              refused error bytes
              Expect.equal (parse bytes[.. bytes.Length - 2]).Status ProxyStatus.NeedMore (Convert.ToHexString bytes)

      testCase "§2.2: a header has 536 bytes at most"
      <| fun () ->
          let rest = Array.append (hex "C0000201 C0000202 1234 5678") (Array.zeroCreate 508)
          let bytes = ProxyWriter.binary 0x21uy 0x11uy rest
          Expect.equal bytes.Length 536 "length"
          let header = parse bytes
          Expect.equal (header.Length, named header) (536, Some(IPAddress.Parse "192.0.2.1", 0x1234)) "accepted"
          Expect.equal (parse bytes[..15]).Length 520 "after the fixed part"
          Expect.equal (ProxyHeader.MaxSize, ProxyHeader.MaxLineSize) (536, 107) "the limits"

      testCase "a TLS record is not a header from its first byte on"
      <| fun () -> refused ProxyError.Signature (hex "16")

      testCase "reading a header allocates nothing"
      <| fun () ->
          let all =
              [| ProxyWriter.line "PROXY TCP6 1:2::3.4.5.6 ::1 443 1\r\n"
                 ProxyWriter.line "PROXY TCP4 1.2.3.4 5.6.7.8 443 1\r\n"
                 ProxyWriter.line "PROXY UNKNOWN\r\n"
                 ProxyWriter.binary 0x21uy 0x21uy (Array.zeroCreate 40)
                 hex "16" |]

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..200 do
                      for bytes in all do
                          ProxyHeader.parse (ReadOnlySpan bytes) |> ignore)

          Expect.equal allocated 0L "bytes" ]

let laws = testList "PROXY headers" (properties @ cases)
