/// Frames of every kind, made at random, and written and read by the core.
module Lightway.Specs.WireMessages

open System
open System.Text
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Specs.Generators


let zeros count = String.replicate count "00"

let header (bytes: byte[]) =
    let mutable header = Unchecked.defaultof<WireHeader>
    let error = WireHeader.tryParse (ReadOnlySpan bytes, &header)
    error, header

let parse (bytes: byte[]) =
    let mutable frame = Unchecked.defaultof<Frame>
    let status = Frame.tryParse (ReadOnlySpan bytes, &frame)
    status, frame

let statusOf bytes = fst (parse bytes)

let payload (bytes: byte[]) (frame: Frame) =
    Array.sub bytes frame.PayloadOffset frame.PayloadLength

let request (body: byte[]) =
    let mutable request = Unchecked.defaultof<AuthRequest>
    let status = AuthRequest.tryParse (ReadOnlySpan body, &request)
    status, request

/// The status of an auth request frame: the frame's own, then that of its body.
let authStatus (bytes: byte[]) =
    match parse bytes with
    | FrameStatus.Ok, frame -> fst (request (payload bytes frame))
    | status, _ -> status

let success (body: byte[]) =
    let mutable success = Unchecked.defaultof<AuthSuccess>
    let status = Frame.tryParseAuthSuccess (ReadOnlySpan body, &success)
    status, success

let config (body: byte[]) =
    let mutable config = Unchecked.defaultof<ExpresslaneConfig>
    let status = Frame.tryParseExpresslaneConfig (ReadOnlySpan body, &config)
    status, config

/// Bytes that a writer puts at the start of a junk buffer.
type Writer = delegate of Span<byte> -> int

let written (writer: Writer) =
    let buffer = junk 70_000
    let length = writer.Invoke(Span buffer)

    if Array.exists ((<>) 0xA5uy) buffer[length..] then
        failwith "wrote behind the end"

    buffer[.. length - 1]

// ---------------------------------------------------------------- generators

/// Any frame, by what a writer takes.
type Message =
    | NoOp
    | Goodbye
    | AuthFailure of AuthRefusal
    | Echo of isPing: bool * id: uint16 * payload: byte[]
    | Packet of encoded: bool * packet: byte[]
    | Piece of encoded: bool * id: uint16 * offset: int * more: bool * payload: byte[]
    | Encoding of isRequest: bool * id: uint64 * enable: bool
    | Server of config: byte[]
    | Success of AuthSuccess
    | Config of ExpresslaneConfig
    | Request of AuthRequest

/// Texts of limited length in UTF-8 bytes.
let text limit =
    gen {
        let! length = Gen.choose (0, limit)

        let! letters =
            Gen.arrayOfLength length (Gen.elements [ "a"; "Z"; "0"; "ß"; "€"; "😀"; "\u0000" ])

        let fits (kept: string) letter =
            if Encoding.UTF8.GetByteCount(kept + letter) <= limit then
                kept + letter
            else
                kept

        return Array.fold fits "" letters
    }

let bytesUpTo limit =
    gen {
        let! length =
            Gen.frequency [ 6, Gen.choose (0, min limit 60); 1, Gen.choose (0, limit); 1, Gen.constant limit ]

        let! seed = Gen.choose (0, Int32.MaxValue - 1)
        return filled (Random seed) length
    }

let any<'a> : Gen<'a> =
    ArbMap.defaults |> ArbMap.mergeWith<WordArbitrary> |> ArbMap.generate<'a>

let authRequest =
    Gen.oneof
        [ Gen.map2
              (fun (user: string) (password: string) ->
                  AuthRequest.userPassword (user, Encoding.UTF8.GetBytes password))
              (text 50)
              (text 50)
          Gen.map AuthRequest.token (text 1347)
          Gen.map2
              (fun version token -> AuthRequest.versionedToken (version, token))
              (Gen.elements [ 0x0101us; 0x0102us; 0x0103us ])
              (text 1345)
          Gen.map AuthRequest.custom (bytesUpTo 1347) ]

let authSuccess =
    gen {
        let! local = any<uint32>
        let! peer = any<uint32>
        let! dns = any<uint32>
        let! mtu = Gen.choose (0, 65535)
        let! session = any<uint64>

        return
            { LocalIp = Ipv4Address local
              PeerIp = Ipv4Address peer
              DnsIp = Ipv4Address dns
              Mtu = mtu
              Session = SessionId session }
    }

let expresslaneConfig =
    gen {
        let! version = any<byte>
        let! enabled = any<bool>
        let! ack = any<bool>
        let! counter = any<uint64>
        let! seed = Gen.choose (0, Int32.MaxValue - 1)

        return
            { Version = version
              Enabled = enabled
              Ack = ack
              Counter = counter
              Key = filled (Random seed) 32 }
    }

let piece =
    gen {
        let! encoded = any<bool>
        let! id = any<uint16>
        let! offset = Gen.choose (0, 8191)
        let! more = any<bool>
        let! payload = bytesUpTo 65535
        return Piece(encoded, id, offset * 8, more, payload)
    }

type FrameArbitrary =
    static member Message() =
        Gen.oneof
            [ Gen.elements [ NoOp; Goodbye ]
              Gen.map AuthFailure (Gen.elements (Enum.GetValues<AuthRefusal>()))
              Gen.map3 (fun isPing id payload -> Echo(isPing, id, payload)) any any (bytesUpTo 65535)
              Gen.map2 (fun encoded packet -> Packet(encoded, packet)) any (bytesUpTo 65535)
              piece
              Gen.map3 (fun isRequest id enable -> Encoding(isRequest, id, enable)) any any any
              Gen.map Server (bytesUpTo 1348)
              Gen.map Success authSuccess
              Gen.map Config expresslaneConfig
              Gen.map Request authRequest ]
        |> fun gen -> Arb.fromGenShrink (gen, FrameArbitrary.Smaller)

    /// The same with half the payload, and with a byte less.
    static member private Smaller(message: Message) : Message seq =
        let fewer (bytes: byte[]) =
            if bytes.Length = 0 then
                []
            else
                [ bytes[.. bytes.Length / 2 - 1]; bytes[.. bytes.Length - 2] ]

        match message with
        | Echo(isPing, id, payload) -> fewer payload |> Seq.map (fun fewer -> Echo(isPing, id, fewer))
        | Packet(encoded, packet) -> fewer packet |> Seq.map (fun fewer -> Packet(encoded, fewer))
        | Piece(encoded, id, offset, more, payload) ->
            fewer payload |> Seq.map (fun fewer -> Piece(encoded, id, offset, more, fewer))
        | Server config -> fewer config |> Seq.map Server
        | _ -> Seq.empty

let seeded =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        arbitrary = [ typeof<SeedArbitrary> ] }

type NoiseArbitrary =
    /// Bytes that often look like the start of a frame, as pure noise nearly always has an unknown kind.
    static member Bytes() =
        gen {
            let! kind = Gen.choose (0, 24)
            let! seed = Gen.choose (0, Int32.MaxValue - 1)
            let! length = Gen.frequency [ 8, Gen.choose (0, 160); 1, Gen.choose (0, 1600) ]
            let! small = Gen.choose (0, 6)
            let! pure' = Gen.frequency [ 1, Gen.constant true; 4, Gen.constant false ]
            let bytes = filled (Random seed) length

            if not pure' && length > 0 then
                bytes[0] <- byte kind

                for i in 1 .. min small (length - 1) do // short lengths and low enums
                    bytes[i] <- bytes[i] &&& 3uy

            return bytes
        }
        |> Arb.fromGen

let messages =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        arbitrary = [ typeof<FrameArbitrary> ] }

let write message : byte[] =
    match message with
    | NoOp -> written (Writer(fun dst -> Frame.writeNoOp dst))
    | Goodbye -> written (Writer(fun dst -> Frame.writeGoodbye dst))
    | AuthFailure refusal -> written (Writer(fun dst -> Frame.writeAuthFailure (refusal, dst)))
    | Echo(true, id, payload) -> written (Writer(fun dst -> Frame.writePing (id, ReadOnlySpan payload, dst)))
    | Echo(false, id, payload) -> written (Writer(fun dst -> Frame.writePong (id, ReadOnlySpan payload, dst)))
    | Packet(false, packet) -> written (Writer(fun dst -> Frame.writeData (ReadOnlySpan packet, dst)))
    | Packet(true, packet) -> written (Writer(fun dst -> Frame.writeEncodedData (ReadOnlySpan packet, dst)))
    | Piece(false, id, offset, more, payload) ->
        written (Writer(fun dst -> Frame.writeFragment (id, offset, more, ReadOnlySpan payload, dst)))
    | Piece(true, id, offset, more, payload) ->
        written (Writer(fun dst -> Frame.writeEncodedFragment (id, offset, more, ReadOnlySpan payload, dst)))
    | Encoding(isRequest, id, enable) ->
        let kind =
            if isRequest then
                FrameKind.EncodingRequest
            else
                FrameKind.EncodingResponse

        written (Writer(fun dst -> Frame.writeEncoding (kind, id, enable, dst)))
    | Server content -> written (Writer(fun dst -> Frame.writeServerConfig (ReadOnlySpan content, dst)))
    | Success success -> written (Writer(fun dst -> Frame.writeAuthSuccess (success, dst)))
    | Config config -> written (Writer(fun dst -> Frame.writeExpresslaneConfig (config, dst)))
    | Request request -> written (Writer(fun dst -> AuthRequest.write (request, dst)))

/// Content of a parsed frame, in the writers' terms.
let read (bytes: byte[]) (frame: Frame) : Message =
    let payload = payload bytes frame
    let id16 = uint16 frame.Id

    match frame.Kind with
    | FrameKind.NoOp -> NoOp
    | FrameKind.Goodbye -> Goodbye
    | FrameKind.AuthFailure -> AuthFailure(Frame.readAuthRefusal (ReadOnlySpan payload))
    | FrameKind.Ping -> Echo(true, id16, payload)
    | FrameKind.Pong -> Echo(false, id16, payload)
    | FrameKind.Data -> Packet(false, payload)
    | FrameKind.EncodedData -> Packet(true, payload)
    | FrameKind.DataFragment -> Piece(false, id16, frame.FragmentOffset, frame.MoreFragments, payload)
    | FrameKind.EncodedDataFragment -> Piece(true, id16, frame.FragmentOffset, frame.MoreFragments, payload)
    | FrameKind.EncodingRequest -> Encoding(true, frame.Id, frame.Enable)
    | FrameKind.EncodingResponse -> Encoding(false, frame.Id, frame.Enable)
    | FrameKind.ServerConfig -> Server payload
    | FrameKind.AuthSuccess -> Success(snd (success payload))
    | FrameKind.ExpresslaneConfig -> Config(snd (config payload))
    | _ -> Request(snd (request payload))
