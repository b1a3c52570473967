/// Keys and passwords do not stay in memory when nobody needs them any more.
module Lightway.Tests.SecretsTests

open System
open System.Collections.Generic
open System.Text
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Server.Auth
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Tls
open Lightway.Tests.Sites

let private isZero (bytes: byte[]) = Array.forall ((=) 0uy) bytes

/// Two Expresslane ends and the arrays of keys that they have sent or received.
type private Keys() =
    let toServer = Queue<ExpresslaneConfig>()
    let toClient = Queue<ExpresslaneConfig>()
    let arrays = ResizeArray<byte[]>()

    let create role (queue: Queue<ExpresslaneConfig>) =
        let send (config: ExpresslaneConfig) =
            arrays.Add config.Key

            queue.Enqueue
                { config with
                    Key = Array.copy config.Key }

        new ExpresslaneChannel(role, true, 1_000L, 1UL <<< 31, PacketAeads.WolfCrypt, Action<ExpresslaneConfig> send)

    let client = create Role.Client toServer
    let server = create Role.Server toClient

    member _.Arrays = arrays
    member _.Client = client
    member _.Server = server

    member _.Exchange(now: int64) =
        while toServer.Count + toClient.Count > 0 do
            for queue, one in [ toServer, server; toClient, client ] do
                if queue.Count > 0 then
                    let config = queue.Dequeue()
                    arrays.Add config.Key
                    one.ConfigReceived(config, now)

    member _.Dispose() =
        client.Dispose()
        server.Dispose()

let private expresslane =
    [ test "Expresslane keys are wiped when they are replaced, and when the connection ends" {
          let keys = Keys()
          keys.Client.Online(ProtocolVersion.V1_3, 0L)
          keys.Server.Online(ProtocolVersion.V1_3, 0L)
          keys.Exchange 0L
          Expect.isTrue (keys.Client.IsReady && keys.Server.IsReady) "ready"
          let first = keys.Arrays.ToArray() |> Array.filter (isZero >> not)
          Expect.isGreaterThanOrEqual first.Length 3 "arrays of two keys, where they came from and where they went"

          // A key that was replaced once is still the previous one of the peer.
          for now in [ 2_000L; 4_000L ] do
              keys.Client.InsideTraffic now
              keys.Server.InsideTraffic now
              keys.Exchange now

          Expect.isTrue (keys.Client.IsReady && keys.Server.IsReady) "ready"
          Expect.all first isZero "the first keys"
          let inUse = keys.Arrays |> Seq.filter (isZero >> not) |> Seq.length
          Expect.isGreaterThanOrEqual inUse 4 "the last ones are in use"
          keys.Dispose()
          Expect.all keys.Arrays isZero "all keys"
      }

      test "an Expresslane key that is repeated until it is answered is not wiped before" {
          let keys = Keys()
          keys.Client.Online(ProtocolVersion.V1_3, 0L)
          keys.Client.Timer 600L
          keys.Server.Online(ProtocolVersion.V1_3, 700L)
          keys.Exchange 700L
          Expect.isTrue (keys.Client.IsReady && keys.Server.IsReady) "ready"
          keys.Dispose()
          Expect.all keys.Arrays isZero "all keys"
      }

      test "a cipher that is wiped has the all-zero key" {
          let seal (cipher: WolfCryptAead) =
              let sealed': byte[] = Array.zeroCreate 32
              let iv: byte[] = Array.zeroCreate PacketAeads.IvSize
              let tag: byte[] = Array.zeroCreate PacketAeads.TagSize

              Expect.isTrue
                  (cipher.Seal(
                      ReadOnlySpan(Array.create 32 7uy),
                      Span sealed',
                      ReadOnlySpan iv,
                      Span tag,
                      ReadOnlySpan()
                  ))
                  "sealed"

              Array.append sealed' tag

          use cipher = new WolfCryptAead(ReadOnlySpan(Array.create 32 1uy))
          use zero = new WolfCryptAead(ReadOnlySpan(Array.zeroCreate<byte> 32))
          Expect.notEqual (seal cipher) (seal zero) "before"
          cipher.Wipe()
          Expect.equal (seal cipher) (seal zero) "after"
      } ]

let private desk () =
    let hash = LibCrypt.Hash(ReadOnlySpan "secret"B, "$1$salt$")

    let users =
        Authenticator.Parse(ReadOnlySpan(Encoding.UTF8.GetBytes $"me:{hash}\n"), 1)

    let seed: HashSeed = { First = 1UL; Second = 2UL }
    LoginDesk(users, LoginGate(LoginLimits.Standard 1, seed)), SourceKey.ofIpv4 (seed, 7u)

let private passwords =
    [ for password, verdict in [ "secret", AuthVerdict.Allowed; "another", AuthVerdict.Refused ] do
          test $"a password is wiped before the answer of its check is known: {verdict}" {
              let desk, source = desk ()
              let bytes = Encoding.UTF8.GetBytes password
              let answered = new ManualResetEventSlim()
              let mutable found = AuthVerdict.Failed, false

              let started =
                  desk.Ask(
                      source,
                      LoginProof.Password("me", bytes),
                      obj (),
                      0L,
                      fun _ answer ->
                          found <- answer.Verdict, isZero bytes
                          answered.Set()
                  )

              Expect.equal started LoginReply.Accepted "started"
              Expect.isTrue (answered.Wait(TimeSpan.FromSeconds 30.)) "answered"
              Expect.equal found (verdict, true) "verdict, and whether the password is wiped"
          }

      test "a password that is not checked is wiped at once, and one whose client has left when that is noticed" {
          let desk, source = desk ()
          let block = new ManualResetEventSlim() // not disposed of: the check may outlive the test

          // The check has one thread, and its answer is held up.
          let ask user now =
              let bytes = "secret"B
              desk.Ask(source, LoginProof.Password(user, bytes), obj (), now, (fun _ _ -> block.Wait())), bytes

          Expect.equal (fst (ask "me" 0L)) LoginReply.Accepted "first"
          let reply, bytes = ask "me" 0L
          Expect.equal reply LoginReply.BeingChecked "second"
          Expect.isTrue (isZero bytes) "wiped"
          let reply, waiting = ask "you" 0L
          Expect.equal reply LoginReply.Accepted "another user waits"
          Expect.isFalse (isZero waiting) "and is needed"
          Expect.equal (fst (ask "her" 10_000L)) LoginReply.Accepted "the next one asks when that one has left"
          Expect.isTrue (isZero waiting) "wiped, too"
          block.Set()
      }

      test "after a login, no buffer of either end has the password, and the client's own copy is wiped" {
          use site = new Site()
          use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
          guest.Reach ConnectionState.Online

          for name, slab in
              [ "server's frames", site.Context.Frame
                "server's plaintext", site.Context.Plaintext
                "server's datagrams", site.Context.Datagram
                "client's frames", guest.End.Context.Frame
                "client's plaintext", guest.End.Context.Plaintext
                "client's datagrams", guest.End.Context.Datagram ] do
              Expect.equal (slab.Span.IndexOf(ReadOnlySpan "secret"B)) -1 name

          Expect.isTrue (isZero guest.Password) "the client's"
      } ]

let tests = testList "Secrets" (expresslane @ passwords)
