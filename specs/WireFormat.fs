/// Bytes on the wire: header (protocol §1), frames (§4), auth requests (§5). Vectors: §12.
module Lightway.Specs.WireFormat

open System
open System.Text
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.WireMessages

let private wireHeader =
    [ testProperty "§1: parsing a written header gives its fields back, and zero in every other byte"
      <| fun (minor: byte) (expresslane: bool) (id: uint64) ->
          let session = SessionId id
          let version = 0x0101us + uint16 (minor % 3uy)

          let payload =
              if expresslane then
                  WirePayload.Expresslane
              else
                  WirePayload.Dtls

          let bytes =
              written (
                  Writer(fun dst ->
                      WireHeader.write (version, payload, session, dst)
                      WireHeader.Size)
              )

          let error, header = header bytes

          error = WireError.None
          && header.Version = version
          && header.Expresslane = expresslane
          && header.Payload = payload
          && header.Session = session
          && not header.Aggressive
          && bytes[4] = 0uy
          && bytes[6] = 0uy
          && bytes[7] = 0uy

      testCase "§12: version 1.2, aggressive, session 123456789abcdef0"
      <| fun () ->
          let expected =
              { Version = ProtocolVersion.V1_2
                Aggressive = true
                Expresslane = false
                Session = SessionId 0x123456789abcdef0UL }

          Expect.equal (header (hex "48650102 01000000 123456789abcdef0")) (WireError.None, expected) "header"

      testCase "§12: what follows the 16 bytes is the payload"
      <| fun () ->
          let datagram = hex "48650103 00000000 deadbeefdeadbeef 616263646566676869"
          let error, header = header datagram
          Expect.equal error WireError.None "valid"
          Expect.equal header.Session (SessionId 0xdeadbeefdeadbeefUL) "session"
          Expect.equal (Encoding.ASCII.GetString datagram[WireHeader.Size ..]) "abcdefghi" "payload"

      testCase "§2: the reject datagram, byte for byte"
      <| fun () ->
          let bytes =
              written (
                  Writer(fun dst ->
                      WireHeader.writeReject dst
                      WireHeader.Size)
              )

          Expect.equal bytes (hex "48650101 00000000 ffffffffffffffff") "reject"

      testCase "§1: reserved bytes are ignored, and any non-zero flag is set"
      <| fun () ->
          let _, header = header (hex "48650103 80ffbeef 0000000000000001")
          Expect.isTrue (header.Aggressive && header.Expresslane && header.Session = SessionId 1UL) "flags"

      testPropertyWithConfig
          seeded
          "§1: any bytes give a header or a reason; a header written again is the bytes, less what is ignored"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let datagram = filled (Random seed) (random.Next 40)
          let likely = hex "4865010100000000"

          for i in 0 .. min 8 datagram.Length - 1 do // noise alone never has the magic
              if random.Next 8 > 0 then
                  datagram[i] <- likely[i]

          match header datagram with
          | WireError.None, parsed ->
              let again =
                  written (
                      Writer(fun dst ->
                          WireHeader.write (parsed.Version, parsed.Payload, parsed.Session, dst)
                          WireHeader.Size)
                  )

              let kept = datagram[.. WireHeader.Size - 1]
              kept[4] <- 0uy // never written
              kept[5] <- (if kept[5] = 0uy then 0uy else 1uy)
              kept[6] <- 0uy
              kept[7] <- 0uy
              again = kept
          | error, _ ->
              let expected =
                  if datagram.Length < WireHeader.Size then
                      WireError.Insufficient
                  elif datagram[..1] <> likely[..1] then
                      WireError.InvalidMagic
                  else
                      WireError.InvalidVersion

              error = expected

      testProperty "§12: 15 bytes of anything, and fewer, are insufficient"
      <| fun (bytes: byte[]) -> fst (header (Array.truncate 15 bytes)) = WireError.Insufficient

      testProperty "§12: a datagram that does not start with 48 65 has an invalid magic, whatever its version"
      <| fun (first: byte) (second: byte) (major: byte) ->
          let magic = [| first; second |]
          let datagram = Array.concat [ magic; [| major; 1uy |]; Array.zeroCreate 12 ]
          fst (header datagram) = WireError.InvalidMagic || magic = [| 0x48uy; 0x65uy |]

      testCase "§1: 1.1, 1.2 and 1.3 are valid; no other version of all 65536 is"
      <| fun () ->
          for version in 0..65535 do
              let datagram = hex $"4865{version:x4}00000000deadbeefdeadbeef"

              let expected =
                  if version >= 0x0101 && version <= 0x0103 then
                      WireError.None
                  else
                      WireError.InvalidVersion

              Expect.equal (fst (header datagram)) expected $"{version:x4}"

      testCase "§2: empty and rejected are reserved, and ids print as 16 digits"
      <| fun () ->
          Expect.isTrue (SessionId.isReserved SessionId.Empty && SessionId.isReserved SessionId.Rejected) "reserved"

          Expect.isFalse
              (SessionId.isReserved (SessionId 1UL) || SessionId.isReserved (SessionId(UInt64.MaxValue - 1UL)))
              "assignable"

          Expect.equal (SessionId.format SessionId.Empty) "0000000000000000" "empty"
          Expect.equal (SessionId.format SessionId.Rejected) "ffffffffffffffff" "rejected"
          Expect.equal (SessionId.format (SessionId 0xDEADBEEFUL)) "00000000deadbeef" "padded"

      testProperty "§1: session ids are equal if their 8 bytes are, as values, as keys and by operator"
      <| fun (one: uint64) (other: uint64) ->
          [ one; other ]
          |> List.forall (fun other ->
              let id, otherId = SessionId one, SessionId other

              (id = otherId) = (one = other)
              && id.Equals otherId = (one = other)
              && SessionId.op_Equality (id, otherId) = (one = other)
              && SessionId.op_Inequality (id, otherId) = (one <> other)
              && (one <> other || id.GetHashCode() = otherId.GetHashCode())
              && string id = $"{one:x16}")

      testCase "a session id as a key allocates nothing"
      <| fun () ->
          let table = System.Collections.Generic.Dictionary<SessionId, int>()
          table[SessionId 1UL] <- 1

          let round count =
              for i in 1..count do
                  table.ContainsKey(SessionId(uint64 i)) |> ignore

          round 100
          Expect.equal (allocatedBy (fun () -> round 10_000)) 0L "bytes" ]

let private frames =
    [ testPropertyWithConfig messages "§4: parsing a written frame gives its content and its length back"
      <| fun (message: Message) (tail: byte[]) ->
          let bytes = write message
          let status, frame = parse (Array.append bytes tail)
          status = FrameStatus.Ok && frame.Length = bytes.Length && read bytes frame = message

      testCase "§4: the law above has samples of every kind of frame, and of every method of authentication"
      <| fun () ->
          let samples =
              Gen.sampleWithSeed (Rnd 1UL) 100 2_000 (FrameArbitrary.Message().Generator) |> Array.map write

          let kinds =
              samples
              |> Array.map (fun bytes -> LanguagePrimitives.EnumOfValue<byte, FrameKind> bytes[0])
              |> Set.ofArray

          Expect.equal kinds (Set.ofArray (Enum.GetValues<FrameKind>())) "kinds"

          let methods =
              samples
              |> Array.filter (fun bytes -> bytes[0] = byte FrameKind.AuthRequest)
              |> Array.map (fun bytes -> LanguagePrimitives.EnumOfValue<byte, AuthMethod> bytes[1])
              |> Set.ofArray

          Expect.equal methods (Set.ofArray (Enum.GetValues<AuthMethod>())) "methods"

      testProperty "§4: a header written before a packet makes the frame of that packet, and touches nothing of it"
      <| fun (content: byte[]) ->
          let data = Array.append (junk Frame.DataHeaderSize) content
          let encoded = Array.copy data
          Frame.writeDataHeader (content.Length, Span data)
          Frame.writeEncodedDataHeader (content.Length, Span encoded)
          data = write (Packet(false, content)) && encoded = write (Packet(true, content))

      testPropertyWithConfig
          messages
          "§4: bytes are a packet exactly if they parse to a plain data frame of all of them"
      <| fun (message: Message) (content: byte[]) (tail: byte) ->
          [ write message; write (Packet(false, content)) ]
          |> List.collect (fun frame ->
              [ frame; Array.append frame [| tail |]; frame[.. frame.Length - 2]; Array.append frame frame ])
          |> List.forall (fun bytes ->
              let status, frame = parse bytes

              let expected =
                  status = FrameStatus.Ok && frame.Kind = FrameKind.Data && frame.Length = bytes.Length

              Frame.isPacket (ReadOnlySpan bytes) = expected)

      testPropertyWithConfig { messages with maxTest = 300 } "§4: every proper prefix of a frame is insufficient"
      <| fun (message: Message) ->
          let bytes = write message

          let lengths =
              Seq.append (seq { 0 .. min 200 (bytes.Length - 1) }) [ bytes.Length - 1 ]

          lengths |> Seq.forall (fun length -> statusOf bytes[.. length - 1] = FrameStatus.Insufficient)

      testPropertyWithConfig
          { messages with
              maxTest = 100_000
              arbitrary = [ typeof<NoiseArbitrary> ] }
          "§4: any bytes parse to a status, and a frame found lies within them"
      <| fun (bytes: byte[]) ->
          let status, frame = parse bytes
          request bytes |> ignore
          success bytes |> ignore
          config bytes |> ignore

          Enum.IsDefined status
          && (status <> FrameStatus.Ok
              || (frame.Length >= 1
                  && frame.Length <= bytes.Length
                  && frame.PayloadOffset >= 1
                  && frame.PayloadLength >= 0
                  && frame.PayloadOffset + frame.PayloadLength <= frame.Length
                  && byte frame.Kind = bytes[0]
                  && frame.FragmentOffset % 8 = 0))

      testProperty
          "§5: an auth failure names credentials by 1 and addresses by 2; no other byte behind its kind is looked at"
      <| fun (code: byte) (seed: int) ->
          let body = filled (Random seed) 52
          body[0] <- code

          let expected =
              match code with
              | 1uy -> AuthRefusal.Credentials
              | 2uy -> AuthRefusal.NoAddress
              | _ -> AuthRefusal.Unspecified

          let status, frame = parse (Array.append [| 7uy |] body)

          status = FrameStatus.Ok
          && frame.Length = 53
          && Frame.readAuthRefusal (ReadOnlySpan body) = expected
          && Frame.readAuthRefusal (ReadOnlySpan body[..0]) = expected
          && Frame.readAuthRefusal ReadOnlySpan.Empty = AuthRefusal.Unspecified

      testCase "§4: kinds 0, 8 to 11, 13 and 21 to 255 are unknown, the others are not"
      <| fun () ->
          let known = set [ 1; 2; 3; 4; 5; 6; 7; 12; 14; 15; 16; 17; 18; 19; 20 ]

          for kind in 0..255 do
              let status = statusOf (Array.append [| byte kind |] (Array.zeroCreate 200))
              Expect.equal (status = FrameStatus.UnknownKind) (not (known.Contains kind)) $"kind {kind}"

      testCase "§4: parsing what runs per packet allocates nothing"
      <| fun () ->
          let samples =
              [| Packet(false, junk 1350)
                 Piece(false, 7us, 1240, true, junk 1240)
                 Echo(true, 0us, junk 16)
                 Echo(false, 0us, [||]) |]
              |> Array.map write

          let mutable frame = Unchecked.defaultof<Frame>
          let mutable header = Unchecked.defaultof<WireHeader>
          let datagram = hex "48650103 00000000 deadbeefdeadbeef"

          let round count =
              let mutable total = 0
              let mutable frame = frame
              let mutable header = header

              for i in 1..count do
                  WireHeader.tryParse (ReadOnlySpan datagram, &header) |> ignore
                  Frame.tryParse (ReadOnlySpan samples[i &&& 3], &frame) |> ignore
                  total <- total + frame.Length

              total

          round 100 |> ignore
          let allocated = allocatedBy (fun () -> round 100_000 |> ignore)
          Expect.isGreaterThan (round 1) 0 "parsed"
          Expect.equal allocated 0L "bytes" ]

let private frameVectors =
    let me = hex $"04 01 02 06 6d65 {zeros 48} 736563726574 {zeros 44}"

    let success =
        hex
            $"06 312e312e312e31 {zeros 17} 322e322e322e32 {zeros 17} 332e332e332e33 {zeros 17} 31353030 {zeros 20} 0000000000002f66"

    let key = Array.init 32 (fun i -> byte (i + 1))
    let frag = Encoding.ASCII.GetBytes "fragmentary"

    [ for name, message, bytes in
          [ "NoOp", NoOp, hex "01"
            "Ping f00b", Echo(true, 0xf00bus, [||]), hex "02 f00b 0000"
            "Pong abcd", Echo(false, 0xabcdus, [||]), hex "03 abcd 0000"
            "Ping 1234 with 16 bytes",
            Echo(true, 0x1234us, Array.init 16 byte),
            hex "02 1234 0010 000102030405060708090a0b0c0d0e0f"
            "Pong dee4 with 2 bytes", Echo(false, 0xdee4us, hex "fffe"), hex "03 dee4 0002 fffe"
            "auth request me/secret", Request(AuthRequest.userPassword ("me", "secret"B)), me
            "auth request token", Request(AuthRequest.token "token"), hex "04 02 0005 746f6b656e"
            "auth request versioned token",
            Request(AuthRequest.versionedToken (0x0103us, "token")),
            hex "04 03 01 03 0005 746f6b656e"
            "auth request custom", Request(AuthRequest.custom (hex "01020304")), hex "04 17 0004 01020304"
            "Data", Packet(false, hex "febeaa"), hex "05 0003 febeaa"
            "auth success",
            Success
                { LocalIp = Ipv4Address 0x01010101u
                  PeerIp = Ipv4Address 0x02020202u
                  DnsIp = Ipv4Address 0x03030303u
                  Mtu = 1500
                  Session = SessionId 0x2f66UL },
            success
            "auth failure", AuthFailure AuthRefusal.Unspecified, hex $"07 {zeros 52}"
            "auth failure, credentials refused", AuthFailure AuthRefusal.Credentials, hex $"07 01 {zeros 51}"
            "auth failure, no address left", AuthFailure AuthRefusal.NoAddress, hex $"07 02 {zeros 51}"
            "Goodbye", Goodbye, hex "0c"
            "server config", Server(Encoding.ASCII.GetBytes "server config"), hex "0e 000d 73657276657220636f6e666967"
            "data fragment", Piece(false, 0x1234us, 0x5678, true, frag), hex "0f 000b 1234 2acf 667261676d656e74617279"
            "encoded data", Packet(true, hex "febeaa"), hex "10 0003 febeaa"
            "encoded data fragment",
            Piece(true, 0x1234us, 0x5678, true, frag),
            hex "11 000b 1234 2acf 667261676d656e74617279"
            "encoding request on", Encoding(true, 513UL, true), hex "12 0000000000000201 01"
            "encoding request off", Encoding(true, 514UL, false), hex "12 0000000000000202 00"
            "encoding response on", Encoding(false, 513UL, true), hex "13 0000000000000201 01"
            "encoding response off", Encoding(false, 514UL, false), hex "13 0000000000000202 00"
            "expresslane config",
            Config
                { Version = 1uy
                  Enabled = true
                  Ack = true
                  Counter = 0x123456789abcdef0UL
                  Key = key },
            hex "14 01 c0 0000 123456789abcdef0 0102030405060708090a0b0c0d0e0f10 1112131415161718191a1b1c1d1e1f20" ] do
          testCase $"§12: {name}, byte for byte, both ways"
          <| fun () ->
              Expect.equal (write message) bytes "written"
              let status, frame = parse bytes
              Expect.equal status FrameStatus.Ok "parsed"
              Expect.equal frame.Length bytes.Length "length"
              Expect.equal (read bytes frame) message "read"

      testCase "§12: a frame that comes in two parts"
      <| fun () ->
          Expect.equal (statusOf (hex "02 f00b")) FrameStatus.Insufficient "first part"
          let both = hex "02 f00b 0000 01"
          let _, ping = parse both
          Expect.equal (ping.Kind, ping.Length, ping.Id) (FrameKind.Ping, 5, 0xf00bUL) "ping"
          let status, next = parse both[ping.Length ..]
          Expect.equal (status, next.Kind) (FrameStatus.Ok, FrameKind.NoOp) "what follows"

      for offset, more, word in
          [ 0, false, "0000"
            0, true, "2000"
            0x8, false, "0001"
            0x8, true, "2001"
            0x1000, false, "0200"
            0x1000, true, "2200"
            0xfff8, false, "1fff"
            0xfff8, true, "3fff" ] do
          testCase $"§12: offset {offset:x}, more {more}, is the word {word}"
          <| fun () ->
              let bytes = write (Piece(false, 1us, offset, more, [| 1uy |]))
              Expect.equal bytes[5..6] (hex word) "word"
              bytes[5] <- bytes[5] ||| 0xC0uy // the two unused bits
              let _, frame = parse bytes
              Expect.equal (frame.FragmentOffset, frame.MoreFragments) (offset, more) "read back" ]

let private refusals =
    let field (length: int) (first: string) =
        let bytes: byte[] = Array.zeroCreate length
        (hex first).CopyTo(bytes, 0)
        bytes

    let sized (prefix: string) (length: int) =
        Array.concat [ hex prefix; hex $"{length:x4}"; Array.create length 0x61uy ]

    let withText at (text: byte[]) =
        let bytes = write (Success(Unchecked.defaultof<AuthSuccess>))
        Array.fill bytes (1 + at) 24 0uy
        text.CopyTo(bytes, 1 + at)
        success bytes[1..]

    [ for name, bytes, expected in
          [ "user of 50 bytes", field 104 "04 01 32 00", FrameStatus.Ok
            "user of 51 bytes", field 104 "04 01 33 00", FrameStatus.FieldTooLarge
            "password of 50 bytes", field 104 "04 01 00 32", FrameStatus.Ok
            "password of 51 bytes", field 104 "04 01 00 33", FrameStatus.FieldTooLarge
            "user c3 28", field 104 "04 01 02 00 c328", FrameStatus.InvalidString
            "password c3 28", Array.append (field 54 "04 01 00 02") (field 50 "c328"), FrameStatus.InvalidString
            "token c3 28", hex "04 02 0002 c328", FrameStatus.InvalidString
            "versioned token c3 28", hex "04 03 0103 0002 c328", FrameStatus.InvalidString
            "token of 1347 bytes", sized "04 02" 1347, FrameStatus.Ok
            "token of 1348 bytes", sized "04 02" 1348, FrameStatus.FieldTooLarge
            "token length 3300", hex "04 02 3300", FrameStatus.FieldTooLarge
            "versioned token of 1345 bytes", sized "04 03 0103" 1345, FrameStatus.Ok
            "versioned token of 1346 bytes", sized "04 03 0103" 1346, FrameStatus.FieldTooLarge
            "versioned token 2.0", hex "04 03 0200 0001 61", FrameStatus.InvalidVersion
            "versioned token 1.0", hex "04 03 0100 0001 61", FrameStatus.InvalidVersion
            "custom of 1347 bytes", sized "04 17" 1347, FrameStatus.Ok
            "custom of 1348 bytes", sized "04 17" 1348, FrameStatus.FieldTooLarge
            "method 0", hex "04 00", FrameStatus.InvalidEnum
            "method 4", hex "04 04", FrameStatus.InvalidEnum
            "method 22", hex "04 16", FrameStatus.InvalidEnum ] do
          testCase $"§12: auth request, {name}: {expected}"
          <| fun () -> Expect.equal (authStatus bytes) expected "status"

      for name, bytes, expected in
          [ "kind 7f", hex "7f", FrameStatus.UnknownKind
            "server config of 1348 bytes", sized "0e" 1348, FrameStatus.Ok
            "server config of 1349 bytes", sized "0e" 1349, FrameStatus.FieldTooLarge
            "data 00 02 00", hex "05 0002 00", FrameStatus.Insufficient
            "server config 00 02 00", hex "0e 0002 00", FrameStatus.Insufficient
            "expresslane config of 43 bytes", field 44 "14", FrameStatus.Insufficient
            "encoding request with enable 2", hex "12 0000000000000001 02", FrameStatus.InvalidBool
            "encoding response with enable ff", hex "13 0000000000000001 ff", FrameStatus.InvalidBool
            "nothing", [||], FrameStatus.Insufficient ] do
          testCase $"§12: {name}: {expected}" <| fun () -> Expect.equal (statusOf bytes) expected "status"

      testPropertyWithConfig seeded "§5: a user is read if and only if its bytes are strict UTF-8"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let user = filled (Random seed) (random.Next(0, 5))

          for i in 0 .. user.Length - 1 do // mostly lead and continuation bytes
              if random.Next 3 > 0 then
                  user[i] <- user[i] ||| 0x80uy

          let body = field 103 $"01 {user.Length:x2} 00"
          user.CopyTo(body, 3)
          let strict = UTF8Encoding(false, throwOnInvalidBytes = true)

          let expected =
              try
                  ValueSome(strict.GetString user)
              with :? DecoderFallbackException ->
                  ValueNone

          match request body, expected with
          | (FrameStatus.Ok, request), ValueSome user -> request.User = user
          | (FrameStatus.InvalidString, _), ValueNone -> true
          | _ -> false

      testPropertyWithConfig seeded "§5: padding behind user and password is ignored"
      <| fun (Seed seed) ->
          let body = (write (Request(AuthRequest.userPassword ("me", "secret"B))))[1..]
          let noise = filled (Random seed) 103
          Array.blit noise 5 body 5 48
          Array.blit noise 59 body 59 44
          let status, request = request body
          status = FrameStatus.Ok && request.User = "me" && request.Password = "secret"B

      testCase "§5: a field that is too long is not written"
      <| fun () ->
          for request in
              [ AuthRequest.userPassword (String('u', 51), [||])
                AuthRequest.userPassword ("", junk 51)
                AuthRequest.token (String('t', 1348))
                AuthRequest.versionedToken (0x0103us, String('t', 1346))
                AuthRequest.custom (junk 1348) ] do
              Expect.equal (AuthRequest.write (request, Span(junk AuthRequest.MaxSize))) 0 $"{request.Method}"

      testProperty "§5: byte 24 of an auth success text is never looked at"
      <| fun (last: byte) ->
          let status, success =
              withText 72 (Array.append (Encoding.ASCII.GetBytes "00000000000000000001350") [| last |])

          let address, _ =
              withText 0 (Array.append (hex $"312e322e332e34 {zeros 16}") [| last |])

          status = FrameStatus.Ok && success.Mtu = 0 && address = FrameStatus.Ok

      testCase "§12: auth success texts that are not UTF-8 are invalid strings, in all four fields"
      <| fun () ->
          for at in [ 0; 24; 48; 72 ] do
              Expect.equal (fst (withText at (hex "c328"))) FrameStatus.InvalidString $"field at {at}"

      testCase "§5: an address is four numbers up to 255, without leading zeros"
      <| fun () ->
          for text in
              [ ""
                "1.1.1"
                "1.1.1.1.1"
                "1..1.1"
                "256.1.1.1"
                "01.1.1.1"
                "1.1.1.1 "
                " 1.1.1.1"
                "1.1.1.x"
                "+1.1.1.1"
                "1.1.1."
                ".1.1.1.1"
                "1111.1.1.1"
                "0x1.1.1.1"
                "::1" ] do
              Expect.equal (fst (withText 24 (Encoding.ASCII.GetBytes text))) FrameStatus.InvalidString $"'{text}'"

          for text, address in [ "0.0.0.0", 0u; "255.255.255.255", UInt32.MaxValue; "10.0.200.9", 0x0A00C809u ] do
              let status, success = withText 24 (Encoding.ASCII.GetBytes text)
              Expect.equal (status, success.PeerIp) (FrameStatus.Ok, Ipv4Address address) text

      testCase "§5: an MTU that is not a number of at most 9 digits reads as 0"
      <| fun () ->
          for text, mtu in
              [ "1350", 1350
                "0", 0
                "", 0
                "-1", 0
                "1350x", 0
                "ß", 0
                "65536", 65536
                "999999999", 999_999_999
                "1000000000", 0
                "99999999999", 0 ] do
              let status, success = withText 72 (Encoding.UTF8.GetBytes text)
              Expect.equal (status, success.Mtu) (FrameStatus.Ok, mtu) $"'{text}'"

      testCase "§4: reserved bits and bytes of an expresslane config are ignored"
      <| fun () ->
          let status, config = config (hex $"02 3f beef 0000000000000007 {zeros 31} 01")
          Expect.equal status FrameStatus.Ok "parsed"
          Expect.isFalse (config.Enabled || config.Ack) "flags"
          Expect.equal config.Counter 7UL "counter" ]

let laws =
    testList
        "wire format"
        [ testList "header" wireHeader
          testList "frames" (frames @ frameVectors)
          testList "refusals" refusals ]
