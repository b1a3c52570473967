/// Formats of the protocol: whatever the bytes, a status; what was read is written again as it was, and read the same.
module Lightway.Fuzz.WireTargets

open System
open Lightway.Protocol
open Lightway.Fuzz.Target

let private parseHeader (bytes: byte[]) =
    let mutable header = Unchecked.defaultof<WireHeader>
    let error = WireHeader.tryParse (ReadOnlySpan bytes, &header)
    struct (error, header)

let private wireHeader (bytes: byte[]) =
    let struct (error, header) = parseHeader bytes

    let expected =
        if bytes.Length < 16 then
            WireError.Insufficient
        elif bytes[0] <> 0x48uy || bytes[1] <> 0x65uy then
            WireError.InvalidMagic
        elif bytes[2] <> 1uy || bytes[3] < 1uy || bytes[3] > 3uy then
            WireError.InvalidVersion
        else
            WireError.None

    if error <> expected then
        broken $"{expected} expected, {error} found"

    if error = WireError.None then
        let copy = junk 20
        WireHeader.write (header.Version, header.Payload, header.Session, Span copy)
        require (isJunk copy[16..]) "written behind 16 bytes"
        require (copy[..3] = bytes[..3] && copy[8..15] = bytes[8..15]) "magic, version or session changed"
        let struct (again, second) = parseHeader copy
        require (again = WireError.None && second = { header with Aggressive = false }) "read differently"

    kind
        [ int error
          int header.Version
          flag header.Aggressive
          flag header.Expresslane
          flag (SessionId.isReserved header.Session) ]

let private parseFrame (bytes: byte[]) =
    let mutable frame = Unchecked.defaultof<Frame>
    let status = Frame.tryParse (ReadOnlySpan bytes, &frame)
    struct (status, frame)

/// The frame written from what was read; None for the kinds that have a target of their own.
let private rewritten (bytes: byte[]) (frame: Frame) : byte[] option =
    let copy = junk (frame.Length + 16)
    let payload = ReadOnlySpan(bytes, frame.PayloadOffset, frame.PayloadLength)
    let id = uint16 frame.Id
    let dst = Span copy

    let length =
        match frame.Kind with
        | FrameKind.NoOp -> Frame.writeNoOp dst
        | FrameKind.Goodbye -> Frame.writeGoodbye dst
        | FrameKind.Ping -> Frame.writePing (id, payload, dst)
        | FrameKind.Pong -> Frame.writePong (id, payload, dst)
        | FrameKind.Data -> Frame.writeData (payload, dst)
        | FrameKind.EncodedData -> Frame.writeEncodedData (payload, dst)
        | FrameKind.ServerConfig -> Frame.writeServerConfig (payload, dst)
        | FrameKind.DataFragment -> Frame.writeFragment (id, frame.FragmentOffset, frame.MoreFragments, payload, dst)
        | FrameKind.EncodedDataFragment ->
            Frame.writeEncodedFragment (id, frame.FragmentOffset, frame.MoreFragments, payload, dst)
        | FrameKind.EncodingRequest
        | FrameKind.EncodingResponse -> Frame.writeEncoding (frame.Kind, frame.Id, frame.Enable, dst)
        | _ -> 0

    require (isJunk copy[length..]) "written behind the frame"
    if length = 0 then None else Some copy[.. length - 1]

let private checkFrame (bytes: byte[]) (frame: Frame) =
    require (frame.Length >= 1 && frame.Length <= bytes.Length) "the frame does not lie in the buffer"
    require (frame.PayloadOffset >= 1 && frame.PayloadLength >= 0) "the payload does not lie in the frame"
    require (frame.PayloadOffset + frame.PayloadLength <= frame.Length) "the payload ends behind the frame"
    require (byte frame.Kind = bytes[0]) "another kind"
    require (frame.FragmentOffset % 8 = 0 && frame.FragmentOffset <= 65528) "a fragment offset that cannot be"
    let exact = bytes[.. frame.Length - 1]
    require (parseFrame exact = struct (FrameStatus.Ok, frame)) "what follows a frame matters to it"
    let struct (cut, _) = parseFrame exact[.. frame.Length - 2]
    require (cut = FrameStatus.Insufficient) "a frame without its last byte is not insufficient"

    match rewritten bytes frame with
    | Some copy ->
        if frame.Kind = FrameKind.DataFragment || frame.Kind = FrameKind.EncodedDataFragment then
            exact[5] <- exact[5] &&& 0x3Fuy // two unused bits

        require (copy = exact) "written differently"
    | None -> ()

/// Frames one after the other, as in a datagram.
let private frames (bytes: byte[]) =
    let rec walk (rest: byte[]) (found: int list) =
        let struct (status, frame) = parseFrame rest
        require (Enum.IsDefined status) "an unknown status"

        if status = FrameStatus.Ok then
            checkFrame rest frame

            let traits =
                [ int frame.Kind
                  magnitude frame.PayloadLength
                  flag (frame.FragmentOffset > 0) + 2 * flag frame.MoreFragments + 4 * flag frame.Enable ]

            // Enough to distinguish paths: the walk itself goes on to the end.
            walk rest[frame.Length ..] (if found.Length < 9 then found @ traits else found)
        else
            found @ [ int status ]

    kind (walk bytes [])

let private parseRequest (bytes: byte[]) =
    let mutable request = Unchecked.defaultof<AuthRequest>
    let status = AuthRequest.tryParse (ReadOnlySpan bytes, &request)
    struct (status, request)

let private authRequest (body: byte[]) =
    let struct (status, request) = parseRequest body
    require (Enum.IsDefined status) "an unknown status"

    let struct (framed, frame) =
        parseFrame (Array.append [| byte FrameKind.AuthRequest |] body)

    if status = FrameStatus.Ok then
        require (framed = FrameStatus.Ok) "a body that is no frame's"
        let copy = junk (AuthRequest.MaxSize + 16)
        let length = AuthRequest.write (request, Span copy)
        require (length > 0 && length <= AuthRequest.MaxSize) "what was read is not written"
        require (length = frame.Length) "written longer or shorter"
        require (isJunk copy[length..]) "written behind the frame"
        require (parseRequest copy[1 .. length - 1] = struct (status, request)) "read differently"

        if request.Method <> AuthMethod.UserPassword then
            require (copy[1 .. length - 1] = body[.. length - 2]) "written differently"
    else
        // Texts and versions are the body's own; all else the frame says too.
        require
            (framed = status
             || (framed = FrameStatus.Ok
                 && (status = FrameStatus.InvalidString || status = FrameStatus.InvalidVersion)))
            "frame and body disagree"

    let sizes =
        if status = FrameStatus.Ok then
            [ int request.Method
              request.User.Length
              request.Password.Length
              magnitude request.Token.Length
              magnitude request.Opaque.Length ]
        else
            []

    kind (int status :: sizes)

let private parseSuccess (bytes: byte[]) =
    let mutable success = Unchecked.defaultof<AuthSuccess>
    let status = Frame.tryParseAuthSuccess (ReadOnlySpan bytes, &success)
    struct (status, success)

let private authSuccess (body: byte[]) =
    let struct (status, success) = parseSuccess body

    let expected =
        if body.Length < 104 then
            status = FrameStatus.Insufficient
        else
            status = FrameStatus.Ok || status = FrameStatus.InvalidString

    if not expected then
        broken $"{status} for {body.Length} bytes"

    if status = FrameStatus.Ok then
        require (success.Mtu >= 0) "a negative MTU"
        let copy = junk 110
        require (Frame.writeAuthSuccess (success, Span copy) = 105 && isJunk copy[105..]) "not 105 bytes"
        require (parseSuccess copy[1..104] = struct (status, success)) "read differently"

    kind
        [ int status
          magnitude success.Mtu
          magnitude (int (success.LocalIp.Value >>> 1))
          magnitude (int (success.PeerIp.Value >>> 1)) ]

let private parseConfig (bytes: byte[]) =
    let mutable config = Unchecked.defaultof<ExpresslaneConfig>
    let status = Frame.tryParseExpresslaneConfig (ReadOnlySpan bytes, &config)
    struct (status, config)

let private expresslaneConfig (body: byte[]) =
    let struct (status, config) = parseConfig body

    if not ((status = FrameStatus.Ok) = (body.Length >= 44)) then
        broken $"{status} for {body.Length} bytes"

    if status = FrameStatus.Ok then
        require (config.Key.Length = 32) "a key of another length"
        let copy = junk 50
        require (Frame.writeExpresslaneConfig (config, Span copy) = 45 && isJunk copy[45..]) "not 45 bytes"
        require (parseConfig copy[1..44] = struct (status, config)) "read differently"
        require (copy[5..44] = body[4..43]) "counter or key changed"

        kind
            [ int (min config.Version 3uy)
              flag config.Enabled
              flag config.Ack
              magnitude (int (min config.Counter 0x7FFFFFFFUL))
              flag (Array.forall ((=) 0uy) config.Key) ]
    else
        0L

let private expresslanePacket (payload: byte[]) =
    let mutable view = Unchecked.defaultof<ExpresslaneView>
    let whole = ExpresslanePacket.tryParse (ReadOnlySpan payload, &view)
    require (not whole || 40 + view.Length <= payload.Length) "the ciphertext does not lie in the packet"

    if whole then
        let copy = Array.copy payload
        ExpresslanePacket.writeHeader (view.Counter, view.Length, view.Flags, Span copy)
        require (copy = payload) "written differently"

        for version in [ 0uy; 1uy; 2uy ] do
            let aad = junk 24

            let length =
                ExpresslanePacket.writeAad (SessionId.Empty, view.Counter, view.Flags, version, Span aad)

            require (length = (if version = 2uy then 18 else 16) && isJunk aad[length..]) "additional data"
            require (aad[8..15] = payload[..7]) "the additional data has another counter"
            require (version <> 2uy || aad[16..17] = payload[38..39]) "the additional data has other flags"

    kind
        [ flag whole
          magnitude view.Length
          int view.Flags &&& 0x8000
          magnitude (payload.Length - 40 - view.Length) ]

/// The first byte says whether the newest handshake has the same random, another one, or none; then comes the body.
let private clientHello (input: byte[]) =
    let bytes = if input.Length = 0 then input else input[1..]
    let part = ClientHello.partOf (ReadOnlySpan bytes)
    let random = ClientHello.randomOf (ReadOnlySpan bytes)
    let isHello = bytes.Length > 13 && bytes[0] = 22uy && bytes[13] = 1uy

    let isFirst =
        isHello && bytes.Length >= 43 && bytes[19] ||| bytes[20] ||| bytes[21] = 0uy

    let expected =
        if isFirst then ClientHelloPart.First
        elif isHello then ClientHelloPart.Later
        else ClientHelloPart.None

    if part <> expected then
        broken $"{expected} expected, {part} found"

    let spelled =
        if isFirst then
            Convert.ToHexStringLower bytes[27..42]
        else
            String('0', 32)

    if random.ToString "x32" <> spelled then
        broken $"the random is {random:x32}, not {spelled}"

    let newest =
        match (if input.Length = 0 then 0 else int input[0] &&& 3) with
        | 0 -> random
        | 1 -> random + UInt128.One
        | _ -> UInt128.Zero

    let opening = DispatchRules.opening (ReadOnlySpan bytes, newest)

    let expected =
        match part with
        | ClientHelloPart.First when newest = random -> Opening.Copy
        | ClientHelloPart.First -> Opening.Fresh
        | ClientHelloPart.Later -> Opening.LaterFragment
        | _ -> Opening.None

    if opening <> expected then
        broken $"{expected} expected, {opening} found"

    kind [ int part; int opening; magnitude bytes.Length; flag (random = UInt128.Zero) ]

let private parseProxy (bytes: byte[]) = ProxyHeader.parse (ReadOnlySpan bytes)

/// A header in the way that a sender writes it, from what was read of another.
let private proxyRewritten (header: ProxyHeader) : byte[] =
    let number (width: int) (value: uint64) =
        [| for at in width - 1 .. -1 .. 0 -> byte (value >>> (8 * at)) |]

    let source =
        if header.IsIPv6 then
            Array.append (number 8 header.High) (number 8 header.Low)
        else
            number 4 header.Low

    let addresses =
        Array.concat [ source; source; number 2 (uint64 header.Port); [| 0uy; 0uy |] ]

    Array.concat
        [ "\r\n\r\n\000\r\nQUIT\n\x21"B
          [| (if header.IsIPv6 then 0x21uy else 0x11uy) |]
          number 2 (uint64 addresses.Length)
          addresses ]

/// Every start of a stream: what is needed never goes beyond the header, and an answer once given stays.
let private proxyHeader (bytes: byte[]) =
    let whole = parseProxy bytes
    require (Enum.IsDefined whole.Status && Enum.IsDefined whole.Error) "an unknown status"
    require ((whole.Status = ProxyStatus.Wrong) = (whole.Error <> ProxyError.None)) "status and error disagree"

    for length in 0 .. min 120 bytes.Length do
        let part = parseProxy bytes[.. length - 1]

        match part.Status with
        | ProxyStatus.NeedMore ->
            require (part.Length > 0 && length + part.Length <= ProxyHeader.MaxSize) "needs nothing, or too much"

            if whole.Status = ProxyStatus.NeedMore then
                require (length + part.Length <= bytes.Length + whole.Length) "needs less with fewer bytes"
            elif whole.Status <> ProxyStatus.Wrong then
                require (length + part.Length <= whole.Length) "needs more than the header has"
        | _ -> require (part = whole) "another answer with more bytes"

    match whole.Status with
    | ProxyStatus.Address ->
        let copy = proxyRewritten whole
        require (parseProxy copy = { whole with Length = copy.Length }) "read differently"
    | ProxyStatus.NoAddress
    | ProxyStatus.NeedMore -> ()
    | _ -> require (whole.Length = 0) "wrong, and yet a length"

    if whole.Status = ProxyStatus.Address || whole.Status = ProxyStatus.NoAddress then
        require (whole.Length <= bytes.Length && whole.Length <= ProxyHeader.MaxSize) "longer than what was received"
        require (parseProxy bytes[.. whole.Length - 1] = whole) "what follows matters"
        require (parseProxy bytes[.. whole.Length - 2] <> whole) "whole without its last byte"

    kind
        [ int whole.Status
          int whole.Error
          flag whole.IsIPv6
          (if whole.Status = ProxyStatus.NeedMore then
               whole.Length
           else
               magnitude whole.Length)
          magnitude (int whole.Port)
          flag (whole.High = 0UL)
          magnitude bytes.Length ]

let targets =
    [ { Name = "proxy-header"
        MaxLength = 600
        Run = proxyHeader }
      { Name = "wire-header"
        MaxLength = 64
        Run = wireHeader }
      { Name = "client-hello"
        MaxLength = 200
        Run = clientHello }
      { Name = "frame"
        MaxLength = 3000
        Run = frames }
      { Name = "auth-request"
        MaxLength = 1500
        Run = authRequest }
      { Name = "auth-success"
        MaxLength = 200
        Run = authSuccess }
      { Name = "expresslane-config"
        MaxLength = 100
        Run = expresslaneConfig }
      { Name = "expresslane-packet"
        MaxLength = 1600
        Run = expresslanePacket } ]
