/// Flags, environment and file: how they are read and merged.
module Lightway.Tests.OptionLayersTests

open System
open System.IO
open System.Net
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Options
open Lightway.Tests.OptionRuns
open Lightway.Tests.ServerOptionsTests

let private layers =
    testList
        "Strength"
        [ testProperty "the strongest layer that gives a value wins: flag, environment, file, default"
          <| fun (flag: bool option) (variable: bool option) (file: bool option) ->
              let text value = string<bool>(value).ToLowerInvariant()

              let flags =
                  [ for value in Option.toList flag -> $"--enable-expresslane={text value}" ]

              let variables =
                  [ for value in Option.toList variable -> "ENABLE_EXPRESSLANE", text value ]

              let yaml =
                  String.concat "" [ for value in Option.toList file -> $"enable_expresslane: {text value}\n" ]

              let expected =
                  [ flag; variable; file ] |> List.tryPick id |> Option.defaultValue serverDefaults.EnableExpresslane

              (run (server flags variables (least + yaml))).EnableExpresslane = expected

          test "a flag without a value switches on, and the last of two flags wins" {
              let options =
                  run (server [ "--enable-pqc"; "--log-level"; "warn"; "--log-level=off" ] [] least)

              Expect.isTrue options.EnablePqc ""
              Expect.equal options.LogLevel LogLevel.Off ""
          }

          test "short flags are those of the reference server" {
              let parse flags yaml =
                  ServerOptions.Parse(Array.ofList flags, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> yaml))

              let options =
                  run (parse [ "-c"; "x.yaml"; "-m"; "udp"; "-a" ] "user_db: a\nother: 1")

              Expect.equal options.ConfigFile "x.yaml" ""
              Expect.isTrue options.AcceptUnknowns ""
          }

          test "an empty variable and a null in the file count as not given" {
              let options =
                  run (server [] [ "TUN_NAME", "" ] (least + "tun_ip: null\nenable_pqc:\nip_pool: ~\n"))

              Expect.equal options serverDefaults ""
          }

          test "RUST_LOG overrides log_level; what it cannot say here is warned about" {
              let outcome =
                  server [ "--log-level=error" ] [ "RUST_LOG", "lightway_core=trace,debug" ] least

              Expect.equal (run outcome).LogLevel LogLevel.Debug ""
              let warning = Expect.wantSome (Seq.tryExactlyOne outcome.Warnings) "one warning"
              expectAll warning [ "LW_SERVER_RUST_LOG"; "lightway_core=trace" ]
          } ]

let private wholeFile =
    """
mode: udp
ip_map:
  192.0.2.1: 10.9.8.16/28
  192.0.2.2: 10.9.8.32/28
"""
    + String.concat
        ""
        [ for key, value, _ in serverKeys do
              if key <> "ip_map" then
                  $"{key}: {value}\n"

          for key, value, _ in serverNotServed @ serverAccepted do
              if key <> "enable_batch_send" then
                  $"{key}: {value}\n" ]

let private files =
    testList
        "File"
        [ test "a file that contains every key starts, and each key without effect is named in a warning" {
              let outcome = server [] [] (wholeFile + "enable_batch_send: false\n")

              let changed =
                  (serverDefaults, serverKeys) ||> List.fold (fun options (_, _, change) -> change options)

              let expected =
                  { changed with
                      IpMapFile = null
                      IpMap =
                          [ for i in 1..2 ->
                                { Local = IPAddress.Parse $"192.0.2.{i}"
                                  Network = IPNetwork.Parse $"10.9.8.{i * 16}/28" } ] }

              Expect.equal (run outcome) expected "every key is read"
              let named = [ for warning in outcome.Warnings -> warning.Split(':')[0] ]
              Expect.equal named [ for key, _, _ in serverNotServed -> key ] "one warning each"
          }

          test "an unknown key is refused with its line and the nearest key, its value left out" {
              let text = refusal (server [] [] (least + "tun_nam: s3cret"))
              expectAll text [ "tun_nam"; "config.yaml:3"; "did you mean tun_name?" ]
              Expect.isFalse (text.Contains "s3cret") "it may be a password"
          }

          test "accept_unknowns turns unknown keys into warnings, from any layer" {
              for flags, variables in [ [ "-a" ], []; [], [ "ACCEPT_UNKNOWNS", "true" ] ] do
                  let outcome = server flags variables (least + "colour: blue")
                  run outcome |> ignore
                  let warning = Expect.wantSome (Seq.tryExactlyOne outcome.Warnings) "one warning"
                  expectAll warning [ "colour"; "config.yaml:3" ]
          }

          for name, yaml, parts in
              [ "a list for a value", least + "tun_name: [a, b]", [ "tun_name"; "list"; ":3" ]
                "a map for a value", least + "tun_name: {a: b}", [ "tun_name"; "map"; ":3" ]
                "a key given twice", least + "mode: udp", [ ":3"; "mode" ]
                "broken YAML", least + "a: [1", [ "config.yaml:"; "not valid YAML" ]
                "a list that does not end", least + "ip_map: [a\n", [ "config.yaml"; "not valid YAML" ]
                "a list in a list that does not end", least + "- [-", [ "config.yaml"; "not valid YAML" ]
                "no map at the root", "- mode", [ "config.yaml:1"; "key: value" ]
                "two documents", least + "---\nmode: udp", [ "second YAML document" ]
                "lists without end", least + "a: " + String('[', 200_000), [ "config.yaml:3"; "deep" ]
                "a list that contains itself", least + "ip_map: &a [*a]", [ "config.yaml:3"; "deep" ]
                "a part that is not in ip_pool",
                least + "ip_map: {192.0.2.1: 10.126.0.0/24}",
                [ "ip_map"; "192.0.2.1"; "10.126.0.0/24"; "ip_pool" ]
                "parts with addresses in common",
                least + "ip_map: {192.0.2.1: 10.125.1.0/24, 192.0.2.2: 10.125.0.0/23}",
                [ "ip_map"; "10.125.1.0/24"; "10.125.0.0/23"; "in common" ]
                "a wrong address in ip_map", least + "ip_map: {x: 10.0.0.0/8}", [ "ip_map"; "\"x\""; "IPv4" ]
                "a wrong network in ip_map", least + "ip_map: {192.0.2.1: 7}", [ "192.0.2.1"; "\"7\""; "IPv4 network" ]
                "a wrong network in the second entry of ip_map",
                least + "ip_map: {192.0.2.1: 10.125.1.0/24, 192.0.2.2: 7}",
                [ "192.0.2.2"; "\"7\""; "IPv4 network" ] ] do
              test $"{name} is one clear error" { expectAll (refusal (server [] [] yaml)) parts }

          test "an empty file is not an error" {
              Expect.equal (run (server [ "-m"; "udp"; "--user-db=./users" ] [] "")) serverDefaults ""
          }

          test "a file that cannot be read, or none, is one clear error" {
              let parse argv =
                  ServerOptions.Parse(argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> raise (IOException "gone")))

              expectAll (refusal (parse [| "-c"; "x.yaml" |])) [ "config_file"; "x.yaml"; "gone" ]
              expectAll (refusal (parse [||])) [ "config_file"; "--config-file" ]
          } ]

let tests: Test = testList "Layers" [ layers; files ]
