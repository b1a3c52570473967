/// Frames accepted per state (protocol §4), transitions between states (§6), errors that end a connection (§6):
/// the tables once more, written down cell by cell.
module Lightway.Specs.LifecycleTable

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Protocol

/// Columns LinkUp, Authenticating, Online; P process, I ignore, S invalid state, M invalid mode.
let private table =
    [ FrameKind.NoOp, "PPP", "PPP"
      FrameKind.Ping, "SSP", "SSP"
      FrameKind.Pong, "SSP", "SSP"
      FrameKind.AuthRequest, "PSP", "MMM"
      FrameKind.Data, "SSP", "SSP"
      FrameKind.AuthSuccess, "MMI", "SPI"
      FrameKind.AuthFailure, "PPP", "PPP"
      FrameKind.Goodbye, "PPP", "PPP"
      FrameKind.ServerConfig, "III", "III"
      FrameKind.DataFragment, "SSP", "SSP"
      FrameKind.EncodedData, "SSP", "SSP"
      FrameKind.EncodedDataFragment, "SSP", "SSP"
      FrameKind.EncodingRequest, "PPP", "PPP"
      FrameKind.EncodingResponse, "SSP", "SSP"
      FrameKind.ExpresslaneConfig, "SSP", "SSP" ]

let private verdict letter =
    match letter with
    | 'P' -> FrameVerdict.Process
    | 'I' -> FrameVerdict.Ignore
    | 'S' -> FrameVerdict.InvalidState
    | _ -> FrameVerdict.InvalidMode

let private states = Enum.GetValues<ConnectionState>()

let private live =
    [ ConnectionState.LinkUp; ConnectionState.Authenticating; ConnectionState.Online ]

let private frames =
    [ for kind, atServer, atClient in table do
          for role, row in [ Role.Server, atServer; Role.Client, atClient ] do
              testCase $"§4: {kind} at a {role}"
              <| fun () ->
                  for state, letter in List.zip live (List.ofSeq row) do
                      Expect.equal (Lifecycle.accepts (role, state, kind)) (verdict letter) $"{state}"

      testCase "§4: the table has every kind"
      <| fun () ->
          let kinds = table |> List.map (fun (kind, _, _) -> kind)
          Expect.equal (List.sort kinds) (List.sort (List.ofSeq (Enum.GetValues<FrameKind>()))) "kinds"

      testCase "§4: an end with a codec takes encoding requests if it is a server that is Online, over datagrams"
      <| fun () ->
          for state in states do
              for transport in [ Transport.Datagram; Transport.Stream ] do
                  let expected =
                      match state, transport with
                      | ConnectionState.Online, Transport.Datagram -> FrameVerdict.Process
                      | ConnectionState.Online, _ -> FrameVerdict.InvalidConnectionType
                      | _ -> FrameVerdict.InvalidState

                  let verdict role =
                      Lifecycle.acceptsEncoding (role, transport, state)

                  Expect.equal (verdict Role.Server) expected $"server, {state}, {transport}"
                  Expect.equal (verdict Role.Client) FrameVerdict.InvalidMode $"client, {state}, {transport}"

      testCase "§6: no frame is looked at before the handshake is done, or once disconnecting began"
      <| fun () ->
          for state in states |> Array.except live do
              for kind in Enum.GetValues<FrameKind>() do
                  for role in [ Role.Server; Role.Client ] do
                      let verdict = Lifecycle.accepts (role, state, kind)
                      Expect.equal verdict FrameVerdict.InvalidState $"{kind} in {state}" ]

/// All states that a role can reach, with every walk that the rules allow.
let rec private reachable role (found: Set<ConnectionState>) =
    let next =
        states
        |> Array.filter (fun after -> found |> Set.exists (fun before -> Lifecycle.canMove (role, before, after)))
        |> Set.ofArray
        |> Set.union found

    if next = found then found else reachable role next

let private moves =
    [ testCase "§6: a client passes through Authenticating, a server never does"
      <| fun () ->
          let start = Set.singleton ConnectionState.Connecting
          Expect.equal (reachable Role.Client start) (Set.ofArray states) "client"
          let server = Set.ofArray states |> Set.remove ConnectionState.Authenticating
          Expect.equal (reachable Role.Server start) server "server"

          Expect.isFalse
              (Lifecycle.canMove (Role.Client, ConnectionState.LinkUp, ConnectionState.Online))
              "no short cut"

      testCase "§6: disconnecting is possible exactly after the handshake, and final"
      <| fun () ->
          for role in [ Role.Server; Role.Client ] do
              for before in states do
                  let disconnects = Lifecycle.canMove (role, before, ConnectionState.Disconnecting)
                  Expect.equal disconnects (List.contains before live) $"{before}"
                  Expect.isFalse (Lifecycle.canMove (role, ConnectionState.Disconnected, before)) "final"
                  let after = before = ConnectionState.Disconnected
                  Expect.equal (Lifecycle.canMove (role, ConnectionState.Disconnecting, before)) after $"to {before}"

      testCase "§6: only a handshake ends without a goodbye: whoever has completed it passes through Disconnecting"
      <| fun () ->
          for role in [ Role.Server; Role.Client ] do
              for before in states do
                  let expected =
                      before = ConnectionState.Connecting || before = ConnectionState.Disconnecting

                  Expect.equal (Lifecycle.canMove (role, before, ConnectionState.Disconnected)) expected $"{before}"

      testCase "§6: states have the numbers that other implementations report"
      <| fun () ->
          let expected =
              [ "Disconnected", 1
                "Connecting", 2
                "Disconnecting", 4
                "Authenticating", 5
                "LinkUp", 6
                "Online", 7 ]

          Expect.equal [ for state in states -> string state, int state ] expected "numbers" ]

let private fatalOnDatagrams =
    set
        [ TunnelError.TimedOut
          TunnelError.Unauthorized
          TunnelError.AccessDenied
          TunnelError.NoFreeClientIp
          TunnelError.Goodbye
          TunnelError.InvalidMode
          TunnelError.InvalidConnectionType
          TunnelError.InvalidInsideIpConfig
          TunnelError.CodecMissing
          TunnelError.FieldTooLarge
          TunnelError.InvalidEnum
          TunnelError.InvalidString
          TunnelError.InvalidBool
          TunnelError.TlsNameMismatch
          TunnelError.TlsDuplicateMessage
          TunnelError.TlsPeerClosed
          TunnelError.TlsCaMissing
          TunnelError.TlsFatalAlert ]

let private errors =
    [ for error in Enum.GetValues<TunnelError>() |> Array.except [ TunnelError.None ] do
          testCase $"§6: {error} ends a stream always, a datagram connection {fatalOnDatagrams.Contains error}"
          <| fun () ->
              Expect.isTrue (Lifecycle.isFatal (Transport.Stream, error)) "stream"
              Expect.equal (Lifecycle.isFatal (Transport.Datagram, error)) (fatalOnDatagrams.Contains error) "datagram"

      testCase
          "§5: a refused login says why as far as it is the client's business; a client understands it, a server does not"
      <| fun () ->
          for reason in Enum.GetValues<TunnelError>() do
              let refusal, error =
                  match reason with
                  | TunnelError.AccessDenied -> AuthRefusal.Credentials, TunnelError.Unauthorized
                  | TunnelError.NoFreeClientIp -> AuthRefusal.NoAddress, TunnelError.NoFreeClientIp
                  | _ -> AuthRefusal.Unspecified, TunnelError.Unauthorized

              Expect.equal (Lifecycle.refusalOf reason) refusal $"{reason}: said"
              Expect.equal (Lifecycle.ofRefusal (Role.Client, refusal)) error $"{reason}: heard by a client"

              Expect.equal
                  (Lifecycle.ofRefusal (Role.Server, refusal))
                  TunnelError.Unauthorized
                  $"{reason}: by a server"

      testCase "§6: no error ends nothing"
      <| fun () ->
          Expect.isFalse
              (Lifecycle.isFatal (Transport.Stream, TunnelError.None)
               || Lifecycle.isFatal (Transport.Datagram, TunnelError.None))
              "none"

      testCase "§6: of frames that cannot be read, those with a bad field end a datagram connection"
      <| fun () ->
          let fatal status =
              Lifecycle.isFatal (Transport.Datagram, Lifecycle.ofFrameStatus status)

          let expected =
              [ FrameStatus.FieldTooLarge
                FrameStatus.InvalidEnum
                FrameStatus.InvalidString
                FrameStatus.InvalidBool ]

          Expect.equal (Enum.GetValues<FrameStatus>() |> List.ofArray |> List.filter fatal) expected "fatal"
          Expect.equal (Lifecycle.ofFrameStatus FrameStatus.Ok) TunnelError.None "ok"

          Expect.isTrue
              (Lifecycle.isFatal (Transport.Stream, Lifecycle.ofFrameStatus FrameStatus.UnknownKind))
              "on a stream" ]

let laws =
    testList "lifecycle" [ testList "frames" frames; testList "moves" moves; testList "errors" errors ]
